"""From tokens to events, with a vocabulary of letters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.llama.answer import Answer
from backends.llama.tool_formats import FORMATS
from backends.llama.tools import Tool
from backends.rpc import backend_pb2 as pb
from tests.backends.harness import calls_of, ids_of, reason_of, text_of

END = 0
CALL = 'So:\n<tool_call>\n{"name": "add", "arguments": {"a": "é"}}\n</tool_call>'


def make(limit: int = 1000, stops: tuple[str, ...] = (), tools: bool = False) -> Answer:
    return Answer(
        0,
        lambda token: bytes([token]),
        frozenset({END}),
        limit=limit,
        stops=stops,
        parser=FORMATS["hermes"].parser([Tool("add", {})]) if tools else None,
        call_id=lambda: "call_1",
    )


def feed(answer: Answer, text: str, start: int = 0) -> list[pb.GenerateEvent]:
    """The events of the bytes of `text`, as far as the answer goes."""
    events = []
    for token in text.encode()[start:]:
        if not answer.reason:
            events += answer.feed(token)
    return events


def test_the_models_own_end_is_a_stop_and_counts_as_no_token() -> None:
    answer = make()
    events = feed(answer, "hi\0")

    assert (text_of(events), reason_of(events), answer.tokens) == ("hi", "stop", 2)


def test_the_limit_ends_the_answer() -> None:
    events = feed(make(limit=2), "abc")

    assert (text_of(events), reason_of(events)) == ("ab", "length")


def test_a_limit_of_nothing_is_reached_at_once() -> None:
    assert make(limit=0).reason == "length"


def test_text_held_back_for_a_stop_string_comes_when_the_answer_ends() -> None:
    events = feed(make(stops=("stop",)), "a st\0")

    assert text_of(events) == "a st"


def test_every_token_is_accounted_for_once() -> None:
    events = feed(make(stops=("zz",), tools=True), CALL + "\nüz\0")

    assert ids_of(events) == list((CALL + "\nüz").encode())


def test_a_call_ends_with_its_own_reason() -> None:
    events = feed(make(tools=True), CALL + "\0")

    assert calls_of(events) == [("add", '{"a": "é"}')]
    assert (text_of(events), reason_of(events)) == ("So:", "tool_calls")


def test_a_call_cut_off_by_the_limit_ends_with_length() -> None:
    assert reason_of(feed(make(limit=55, tools=True), CALL)) == "length"


@pytest.mark.parametrize("tools", [False, True])
@given(data=st.data())
def test_replaying_given_tokens_leads_to_the_same_answer(tools: bool, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([CALL + "\0", "a plain én\0", "with a stop in it", "a s\0"]))
    whole = feed(make(stops=("stop",), tools=tools), text)
    ids = ids_of(whole)
    cut = data.draw(st.integers(0, len(ids)))

    answer = make(stops=("stop",), tools=tools)
    for token in ids[:cut]:
        answer.replay(token)
    rest = feed(answer, text, start=cut)

    assert ids[:cut] + ids_of(rest) == ids
    assert text_of(whole).endswith(text_of(rest))
