"""How a chaos run tells a right answer from a wrong one."""

import pytest

from tests.chaos.questions import Choice, Reduced, lost_and_doubled, same, take_chunk, told, whole


def answer(text: str) -> Reduced:
    return Reduced({0: Choice(text=text, reason="stop", ends=1)}, completion_tokens=3)


@pytest.mark.parametrize(
    ("got", "counts"),
    [
        pytest.param("one two three", (0, 0), id="right"),
        pytest.param("one three", (1, 0), id="lost"),
        pytest.param("one two two three", (0, 1), id="doubled"),
        pytest.param("one", (2, 0), id="cut off"),
        pytest.param("one two three two three", (0, 2), id="said again"),
    ],
)
def test_lost_and_doubled_words_are_counted(got: str, counts: tuple[int, int]) -> None:
    assert lost_and_doubled(answer("one two three"), answer(got)) == counts


def test_a_streamed_answer_is_the_same_as_a_whole_one() -> None:
    streamed = Reduced()
    for part in ("word0", " word1"):
        take_chunk(streamed, {"choices": [{"index": 0, "delta": {"content": part}}]})
    take_chunk(streamed, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    take_chunk(streamed, {"choices": [], "usage": {"completion_tokens": 2}})
    body = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": "word0 word1"}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 2},
    }

    assert same(streamed, whole(body))
    assert same(streamed, told(2))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(
            Reduced({0: Choice(text="word0 word1", reason="stop", ends=2)}, completion_tokens=2), id="two ends"
        ),
        pytest.param(
            Reduced({0: Choice(text="word0 word1", reason="stop", ends=1)}, completion_tokens=3), id="miscounted"
        ),
        pytest.param(Reduced({0: Choice(text="word0 word1")}, completion_tokens=2), id="no end"),
    ],
)
def test_the_right_words_are_not_enough(wrong: Reduced) -> None:
    assert not same(told(2), wrong)
