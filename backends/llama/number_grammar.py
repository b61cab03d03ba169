"""Numbers within bounds, as GBNF.

A range of integers becomes alternatives of digit sets: 8 to 123 is `[8-9] | [1-9][0-9] | "1" [0-1][0-9]
| "12" [0-3]`. A range of decimals is one of integers with a point before the last digits.
"""

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import groupby

MAX_DIGITS = 15
"""Of an integer: every program reads those exactly."""

DECIMALS = 2
"""After the point, where bounds do not need more."""

MAX_DECIMALS = 9

_LARGEST = 10**MAX_DIGITS - 1

Digits = tuple[tuple[int, int], ...]
"""For each place the smallest and the largest digit."""


def integer_grammar(low: Decimal | None, high: Decimal | None) -> str | None:
    """The integers from `low` to `high`; None if there are none that can be written."""
    first = -_LARGEST if low is None else int(low.to_integral_value(ROUND_CEILING))
    last = _LARGEST if high is None else int(high.to_integral_value(ROUND_FLOOR))
    return _fixed_point(first, last, 0)


def decimal_grammar(low: Decimal | None, high: Decimal | None) -> str | None:
    """The numbers from `low` to `high`, with a point or without; None if there are none."""
    places = min(MAX_DECIMALS, max(DECIMALS, *(_places(bound) for bound in (low, high))))
    scale = Decimal(10) ** places
    first = -_LARGEST if low is None else int((low * scale).to_integral_value(ROUND_CEILING))
    last = _LARGEST if high is None else int((high * scale).to_integral_value(ROUND_FLOOR))
    ways = [way for way in (integer_grammar(low, high), _fixed_point(first, last, places)) if way]
    return " | ".join(ways) or None


def just_inside(bound: Decimal, *, upwards: bool, whole: bool) -> Decimal:
    """The nearest number beyond an exclusive bound that is written with the usual decimals."""
    if whole:
        rounded = bound.to_integral_value(ROUND_FLOOR if upwards else ROUND_CEILING)
        return rounded + (1 if upwards else -1)
    step = Decimal(10) ** -max(DECIMALS, min(MAX_DECIMALS, _places(bound) + 1))
    return bound + step if upwards else bound - step


def _places(bound: Decimal | None) -> int:
    exponent = bound.normalize().as_tuple().exponent if bound is not None else 0
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def _fixed_point(first: int, last: int, places: int) -> str | None:
    first, last = max(first, -_LARGEST), min(last, _LARGEST)
    ways = [f'"-" {way}' for way in _ways(max(1, -last), -first, places)] if first < 0 else []
    ways += _ways(max(0, first), last, places)
    return " | ".join(ways) or None


def _ways(low: int, high: int, places: int) -> list[str]:
    """`low` to `high`, neither of them negative. Without an upper bound, longer numbers are one way."""
    width = max(places + 1, len(str(low)))
    longer = f"[1-9] [0-9]{{{width - places},{MAX_DIGITS - places - 1}}}{_point(((0, 9),) * places)}"
    is_open = high == _LARGEST and width < MAX_DIGITS
    ways = [_written(way, places) for way in _ranges(low, 10**width - 1 if is_open else high, places)]
    return [*ways, longer] if is_open else ways


def _ranges(low: int, high: int, places: int) -> Iterator[Digits]:
    """`low` to `high`, neither negative, with at least one digit before the point and no needless zeros."""
    for width in range(places + 1, max(MAX_DIGITS, places + 1) + 1):
        least = 0 if width == places + 1 else 10 ** (width - 1)
        a, b = max(low, least), min(high, 10**width - 1)
        if a <= b:
            yield from _between(f"{a:0{width}d}", f"{b:0{width}d}")


def _between(low: str, high: str) -> Iterator[Digits]:
    """All digit strings from `low` to `high`, which are of one length."""
    if not low:
        yield ()
        return
    a, b = int(low[0]), int(high[0])
    rest = len(low) - 1
    if a == b:
        for tail in _between(low[1:], high[1:]):
            yield ((a, a), *tail)
        return
    if low[1:].strip("0"):
        for tail in _between(low[1:], "9" * rest):
            yield ((a, a), *tail)
        a += 1
    upper = high[1:].strip("9")
    if a <= (b - 1 if upper else b):
        yield ((a, b - 1 if upper else b), *(((0, 9),) * rest))
    if upper:
        for tail in _between("0" * rest, high[1:]):
            yield ((b, b), *tail)


def _written(digits: Digits, places: int) -> str:
    whole, after = digits[: len(digits) - places], digits[len(digits) - places :]
    return _sets(whole) + _point(after)


def _point(digits: Digits) -> str:
    return f' "." {_sets(digits)}' if digits else ""


def _sets(digits: Digits) -> str:
    return " ".join(
        (f"[{a}]" if a == b else f"[{a}-{b}]") + (f"{{{count}}}" if count > 1 else "")
        for (a, b), count in ((pair, len(list(same))) for pair, same in groupby(digits))
    )
