"""Who is next when every slot is taken: callers take turns, each with its own oldest request.

When too many wait, the caller with the most waiting gives way with its latest request, so that
nobody can keep the others out by asking more.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Waiting requests, by caller."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Item]] = OrderedDict()
        """The caller whose turn it is comes first."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Item]:
        for items in self._waiting.values():
            yield from items

    def add(self, caller: str, item: Item) -> None:
        """It waits."""
        self._waiting.setdefault(caller, deque()).append(item)

    def next(self) -> Item | None:
        """Whose turn it is; it stays until it is taken."""
        return next(iter(self._waiting.values()))[0] if self._waiting else None

    def take(self) -> Item:
        """The next one; its caller's other requests come after everybody else's."""
        caller, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[caller] = items
        return item

    def turn_away(self, newcomer: str) -> Item:
        """The latest request of the caller with the most waiting; of equals, that of the newcomer."""
        greedy = max(self._waiting, key=lambda caller: (len(self._waiting[caller]), caller == newcomer))
        item = self._waiting[greedy][-1]
        self.remove(item)
        return item

    def remove(self, item: Item) -> None:
        """It waits no more."""
        for caller, items in list(self._waiting.items()):
            if item in items:
                items.remove(item)
                if not items:
                    del self._waiting[caller]
