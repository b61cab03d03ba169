"""What is guessed ahead, and when that pays. No model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.llama.guessing import PROBE_EVERY, Pace, PromptLookup, Record, expected


def guess(text: str, most: int = 4, prediction: str = "") -> str:
    ids = [ord(letter) for letter in text]
    return "".join(map(chr, PromptLookup(ids, [ord(letter) for letter in prediction]).guess(ids, most)))


@pytest.mark.parametrize(
    ("text", "expected_guess"),
    [
        pytest.param("the cat. the c", "at. ", id="as the last time"),
        pytest.param("abcX abcY abc", "Y ab", id="as the last of several times"),
        pytest.param("1abcdX 2bcdY 1abcd", "X 2b", id="as where more of it was the same"),
        pytest.param("xyzxy", "zxyz", id="on and on where the text goes round"),
        pytest.param("aaaa", "aaaa", id="one token again and again"),
        pytest.param("abcdef", "", id="nothing like it was there"),
        pytest.param("a", "", id="too short"),
        pytest.param("ab xb", "", id="one token alone says nothing"),
    ],
)
def test_text_goes_on_as_it_did_before(text: str, expected_guess: str) -> None:
    assert guess(text) == expected_guess


def test_a_prediction_is_guessed_from_the_answers_first_token_on() -> None:
    assert guess("question?", prediction="answer") == "answ"
    assert guess("question?answ", prediction="answer") == "er"
    assert guess("question?An answ", prediction="answer") == "er"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 8))
def test_a_lookup_that_follows_the_text_guesses_like_one_that_begins_there(text: list[int], most: int) -> None:
    following = PromptLookup(text[:5])
    for length in range(1, len(text) + 1):
        guessed = following.guess(text[:length], most)

        assert guessed == PromptLookup(text[:5]).guess(text[:length], most)
        assert len(guessed) <= most
        assert set(guessed) <= set(text[:length])


def paced(cost_of_one: float, each_more: float) -> Pace:
    """A pace that knows steps of all sizes: what the first token costs, and every further one."""
    pace = Pace()
    for tokens in (1, 2, 4, 8, 16, 32, 64, 128):
        pace.measured(tokens, cost_of_one + each_more * (tokens - 1))
    return pace


def test_guessing_pays_where_more_tokens_cost_little_and_guesses_come_true() -> None:
    assert paced(1.0, 0.01).choose([0.95], [16]) == 16
    assert 1 <= paced(1.0, 0.1).choose([0.6], [16]) <= 4


@pytest.mark.parametrize(
    ("pace", "rates"),
    [
        pytest.param(paced(1.0, 0.2), [0.05], id="guesses hardly come true"),
        pytest.param(paced(1.0, 1.0), [0.9], id="every token costs as much as the first"),
        pytest.param(paced(1.0, 0.5), [0.5] * 16, id="many streams fill the batch already"),
    ],
)
def test_guessing_stops_where_it_does_not_pay_and_is_tried_now_and_then(pace: Pace, rates: list[float]) -> None:
    chosen = [pace.choose(rates, [8] * len(rates)) for _ in range(2 * PROBE_EVERY)]

    assert chosen.count(0) == 2 * PROBE_EVERY - 2
    assert sum(chosen) == 8


def test_what_a_draft_costs_counts() -> None:
    assert paced(1.0, 0.01).choose([0.7], [8], each=0.01) > 0
    assert paced(1.0, 0.01).choose([0.7], [8], each=1.0) == 0


def test_streams_that_cannot_be_guessed_make_the_step_no_cheaper() -> None:
    pace = paced(1.0, 0.3)

    assert pace.choose([0.8], [4]) > 0
    assert pace.choose([0.8], [4], streams=16) == 0


def test_nothing_known_is_a_reason_to_try() -> None:
    assert Pace().choose([0.7], [5]) == 5
    assert Pace().choose([], []) == 0


def test_a_record_follows_what_comes_true() -> None:
    good, bad = Record(), Record()
    for _ in range(20):
        good.note(4, 4)
        bad.note(4, 0)

    assert good.rate > 0.95
    assert bad.rate < 0.1


@given(st.floats(0, 1), st.integers(0, 20))
def test_a_step_gives_at_least_one_token_and_at_most_one_more_than_guessed(rate: float, guesses: int) -> None:
    assert 1 <= expected(rate, guesses) <= 1 + guesses + 1e-9
