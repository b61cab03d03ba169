"""What a case yields."""

from collections.abc import Sequence

Figures = dict[str, float]


def ms(seconds: float) -> float:
    return seconds * 1000


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
