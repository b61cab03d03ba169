"""What a client was given of an answer: what another node needs to go on exactly there. Pure.

Every event of the backend protocol says which tokens it accounts for. An event that was passed on counts as
given, whole; so the tokens kept here and the text that the client has always fit together, wherever the answer
broke off.
"""

from collections.abc import Iterable, Sequence

from api.ports import Event, Finished, Usage
from backends.rpc import backend_pb2 as pb
from node import protocol

Given = Sequence[tuple[int, Sequence[int]]]
"""Tokens already given, by choice."""


class AnswerSoFar:
    """The tokens of a running answer. `take` every reply exactly once, in order."""

    def __init__(self) -> None:
        self._ids_by_choice: dict[int, list[int]] = {}
        self._finished: set[int] = set()
        self.is_complete = False
        """The last event of all (usage) was given."""

    @property
    def given(self) -> Given:
        """For `GenerateRequest.given` of whoever goes on."""
        return [(choice, ids) for choice, ids in sorted(self._ids_by_choice.items()) if ids]

    def take(self, replies: Iterable[bytes]) -> list[Event]:
        """Remembers serialized `GenerateReply` messages, and returns what of them is news to the client."""
        events: list[Event] = []
        for raw in replies:
            for message in pb.GenerateReply.FromString(raw).events:
                event = protocol.event(message)
                if event is None:
                    continue
                ids = protocol.token_ids(message)
                if ids:
                    self._ids_by_choice.setdefault(message.choice, []).extend(ids)
                if isinstance(event, Finished):
                    # Whoever goes on with one choice ends the others, which had ended before, once more.
                    if event.choice in self._finished:
                        continue
                    self._finished.add(event.choice)
                events.append(event)
        if events and isinstance(events[-1], Usage):
            self.is_complete = True
        return events
