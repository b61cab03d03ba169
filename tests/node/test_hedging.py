"""How late is late, and how many copies there may be."""

from hypothesis import given
from hypothesis import strategies as st

from node.hedging import BURST, FEWEST, SHARE, Hedging


def known(*seconds: float) -> Hedging:
    hedging = Hedging()
    for value in seconds:
        hedging.answered("m", value)
    return hedging


def test_nothing_is_sent_twice_before_enough_is_known() -> None:
    assert known(*[0.1] * (FEWEST - 1)).patience("m") is None
    assert known(*[0.1] * FEWEST).patience("m") == 0.1
    assert known(*[0.1] * FEWEST).patience("other") is None


def test_late_is_later_than_95_of_100() -> None:
    assert known(*[float(n) for n in range(1, 101)]).patience("m") == 95.0


def test_old_answers_are_forgotten_and_so_are_old_models() -> None:
    hedging = known(*[9.0] * 100, *[1.0] * 300)
    assert hedging.patience("m") == 1.0

    for number in range(100):
        hedging.answered(f"m{number}", 1.0)

    assert hedging.patience("m") is None


@given(st.lists(st.booleans(), max_size=400))
def test_copies_stay_a_small_share_whatever_happens(slow: list[bool]) -> None:
    hedging = known(*[0.1] * FEWEST)
    copies = 0
    for number, is_slow in enumerate(slow, start=1):
        hedging.asked()
        if is_slow and hedging.patience("m") is not None:
            hedging.spend()
            copies += 1

        assert copies <= 1 + SHARE * number
        assert copies <= BURST + SHARE * number
