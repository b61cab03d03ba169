"""What a case yields."""

from collections.abc import Mapping, Sequence
from statistics import median

Figures = dict[str, float]


def ms(seconds: float) -> float:
    return seconds * 1000


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def slower(took: Mapping[str, Sequence[float]]) -> Figures:
    """How much longer "local" and "forwarded" calls took than "direct" ones, by their medians."""
    middle = {name: median(times) for name, times in took.items()}
    return {"direct_s": middle["direct"]} | {
        f"{name}_slower_percent": 100 * (middle[name] / middle["direct"] - 1) for name in ("local", "forwarded")
    }


def medians(repeats: list[Figures]) -> Figures:
    """The median of each figure, of those repeats that have it: a peer may have failed in some."""
    names = {name: None for repeat in repeats for name in repeat}
    return {name: median(repeat[name] for repeat in repeats if name in repeat) for name in names}
