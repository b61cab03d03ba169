"""Who failed lately is left alone, and tried again with one request."""

from hypothesis import given
from hypothesis import strategies as st

from node.breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Breaker


def opened(now: float = 0.0) -> Breaker[str]:
    breaker: Breaker[str] = Breaker()
    for _ in range(FAILURES):
        breaker.failed("b", now)
    return breaker


def test_a_failure_or_two_are_forgiven() -> None:
    breaker: Breaker[str] = Breaker()
    for _ in range(5):
        for _ in range(FAILURES - 1):
            breaker.failed("b", 0)
        assert not breaker.is_open("b", 0)
        breaker.finished("b")

    assert not breaker


def test_failures_in_a_row_open_it_for_that_one_alone() -> None:
    breaker = opened()

    assert breaker.is_open("b", FIRST_PAUSE - 0.1)
    assert not breaker.is_open("c", 0)


def test_after_the_pause_one_request_tries() -> None:
    breaker = opened()
    assert not breaker.is_open("b", FIRST_PAUSE)

    breaker.sent("b", FIRST_PAUSE)

    assert breaker.is_open("b", FIRST_PAUSE)


def test_its_first_reply_closes_it() -> None:
    breaker = opened()
    breaker.sent("b", FIRST_PAUSE)

    breaker.answered("b")

    assert not breaker.is_open("b", FIRST_PAUSE)


def test_an_answer_that_breaks_off_after_its_first_reply_opens_it_again() -> None:
    breaker = opened()
    breaker.sent("b", FIRST_PAUSE)
    breaker.answered("b")

    breaker.failed("b", FIRST_PAUSE)

    assert breaker.is_open("b", FIRST_PAUSE)


def test_its_failure_doubles_the_pause() -> None:
    breaker = opened()
    breaker.sent("b", FIRST_PAUSE)
    breaker.failed("b", FIRST_PAUSE)

    assert breaker.is_open("b", FIRST_PAUSE + 2 * FIRST_PAUSE - 0.1)
    assert not breaker.is_open("b", FIRST_PAUSE + 2 * FIRST_PAUSE)


def test_a_client_that_leaves_gives_the_try_to_the_next_one() -> None:
    breaker = opened()
    breaker.sent("b", FIRST_PAUSE)

    breaker.given_up("b")

    assert not breaker.is_open("b", FIRST_PAUSE)


@given(st.lists(st.sampled_from(["sent", "answered", "finished", "given_up", "failed"]), max_size=60))
def test_whatever_happened_nobody_is_left_alone_for_ever(history: list[str]) -> None:
    breaker: Breaker[str] = Breaker()
    for now, what in enumerate(history):
        if what in ("sent", "failed"):
            getattr(breaker, what)("b", float(now))
        else:
            getattr(breaker, what)("b")
    breaker.given_up("b")

    assert not breaker.is_open("b", len(history) + LONGEST_PAUSE)
