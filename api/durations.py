"""Durations as Ollama's clients write them: seconds, or texts like "5m" and "1h30m". Pure."""

import math
import re

from api.errors import InvalidRequestError
from api.fields import Json

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h)", re.ASCII)


def read_duration(value: Json, param: str) -> float | None:
    """Seconds; less than none means for ever (infinite). None if it is not given.

    Raises:
        InvalidRequestError: it is no duration.
    """
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is None:
        raise InvalidRequestError(
            f"Invalid '{param}': give seconds or a text like '5m'; a negative one means for ever.", param=param
        )
    return math.inf if seconds < 0 else seconds


def _seconds(value: Json) -> float | None:
    if isinstance(value, bool) or value != value:
        return None
    if isinstance(value, int | float):
        return max(-1.0, min(value, 1e12))
    if not isinstance(value, str) or len(value) > 100:
        return None
    text = value.removeprefix("-")
    parts = _PART.findall(text)
    if text and "".join(number + unit for number, unit in parts) == text:
        total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    elif re.fullmatch(r"\d{1,12}", text, re.ASCII):
        total = float(text)
    else:
        return None
    return -1.0 if text != value else total
