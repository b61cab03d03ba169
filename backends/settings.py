"""Settings: a JSON object from outside becomes a frozen dataclass, or a refusal that helps.

    @dataclass(frozen=True)
    class EchoSettings:
        slots: int = 4

    read_settings(EchoSettings, '{"slot": 2}')   ->  unknown setting 'slot'; did you mean 'slots'?

A field's annotation says what is accepted: `bool`, `int`, `float`, `str`, one of them or None, or a tuple of any
number of one of them, which is written as an array.
Ranges are the dataclass's own business: its `__post_init__` raises ValueError.
"""

import difflib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from backends.errors import InvalidValueError

T = TypeVar("T")

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def read_settings(kind: type[T], text: str, *, param: str = "settings_json") -> T:
    """The settings written in the JSON `text`; an empty text means all defaults.

    Raises:
        InvalidValueError: not a JSON object, an unknown setting, a wrong type or range.
    """
    return build_settings(kind, parse_object(text, param=param), param=param)


def parse_object(text: str, *, param: str) -> dict[str, Any]:
    """The JSON object in `text`; an empty text is an empty object.

    Raises:
        InvalidValueError: it is not a JSON object.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise InvalidValueError(f"{param} is not valid JSON: {exc}", param=param) from exc
    if not isinstance(value, dict):
        raise InvalidValueError(f"{param} must be a JSON object", param=param)
    return value


def build_settings(kind: type[T], given: Mapping[str, Any], *, param: str) -> T:
    """`kind` filled with `given`; null stands for the default.

    Raises:
        InvalidValueError: an unknown setting, a wrong type or range.
    """
    hints = typing.get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # T is a dataclass
    values = {}
    for name, value in given.items():
        if name not in known:
            raise InvalidValueError(_unknown(name, known), param=param)
        if value is not None:
            values[name] = _checked(name, value, hints[name], param)
    try:
        return kind(**values)
    except ValueError as exc:
        raise InvalidValueError(str(exc), param=param) from exc


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return f"unknown setting {name!r}; {hint}"


def _checked(name: str, value: Any, hint: Any, param: str) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(kind for kind in kinds if kind is not type(None))
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(value, list):
            raise InvalidValueError(f"setting {name!r} must be an array, not {json.dumps(value)}", param=param)
        return tuple(_checked(name, entry, item, param) for entry in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise InvalidValueError(f"setting {name!r} must be {_NAMES[kind]}, not {json.dumps(value)}", param=param)
