"""JSON fields: what a request may say, refused with a sentence that helps.

Each dialect lists its fields as values (`Number("temperature", 0, 2)`). The list is used twice: to read
requests, and to describe them in `/openapi.json`, so the description cannot drift from the truth.

1. A field that is absent or `null` reads as `None`: many clients send `null` for "not set".
2. A wrong type or range is the client's mistake: 400, with `param` naming the field.
3. Nothing is converted, except that a whole float counts as an integer: some clients' JSON libraries
   know no other numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from api.errors import InvalidRequestError

Json = Any
"""A parsed JSON value of unknown shape."""
JsonObject = Mapping[str, Json]

MAX_MODEL_NAME = 512
"""Characters. Longer than any file path a model is named after; short enough to repeat in an error."""


class Field(Protocol):
    """One member of a JSON object: how to check it, and how to describe it."""

    @property
    def name(self) -> str: ...

    def check(self, value: Json, param: str) -> Any:
        """The value, checked. `param` is how the error names it. `value` is never None."""
        ...

    def schema(self) -> dict[str, Json]:
        """Its JSON schema."""
        ...


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds, both included."""

    name: str
    low: float
    high: float
    about: str = ""

    def check(self, value: Json, param: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(param, f"a number between {self.low:g} and {self.high:g}", value)
        if not self.low <= value <= self.high:
            raise InvalidRequestError(
                f"Invalid '{param}': {value:g} is not between {self.low:g} and {self.high:g}.", param=param
            )
        return float(value)

    def schema(self) -> dict[str, Json]:
        return _described({"type": "number", "minimum": self.low, "maximum": self.high}, self.about)


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number within bounds, both included."""

    name: str
    low: int
    high: int
    about: str = ""

    def check(self, value: Json, param: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(param, "an integer", value)
        if not self.low <= value <= self.high:
            raise InvalidRequestError(
                f"Invalid '{param}': {_shown(value)} is not between {self.low} and {self.high}.", param=param
            )
        return value

    def schema(self) -> dict[str, Json]:
        return _described({"type": "integer", "minimum": self.low, "maximum": self.high}, self.about)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    name: str
    about: str = ""

    def check(self, value: Json, param: str) -> bool:
        if not isinstance(value, bool):
            raise wrong_type(param, "true or false", value)
        return value

    def schema(self) -> dict[str, Json]:
        return _described({"type": "boolean"}, self.about)


@dataclass(frozen=True, slots=True)
class Text:
    """A string, one of `choices` if there are any."""

    name: str
    choices: Sequence[str] = ()
    about: str = ""

    def check(self, value: Json, param: str) -> str:
        if not isinstance(value, str):
            raise wrong_type(param, "a string", value)
        if self.choices and value not in self.choices:
            raise InvalidRequestError(
                f"Invalid '{param}': {_shown(value)} is not one of {', '.join(map(repr, self.choices))}.",
                param=param,
            )
        return value

    def schema(self) -> dict[str, Json]:
        choices = {"enum": list(self.choices)} if self.choices else {}
        return _described({"type": "string", **choices}, self.about)


@dataclass(frozen=True, slots=True)
class Object:
    """A JSON object, whatever is in it."""

    name: str
    about: str = ""

    def check(self, value: Json, param: str) -> JsonObject:
        if not isinstance(value, dict):
            raise wrong_type(param, "an object", value)
        return value

    def schema(self) -> dict[str, Json]:
        return _described({"type": "object"}, self.about)


@dataclass(frozen=True, slots=True)
class Shaped:
    """A field whose shape is checked by a function of its dialect; described by a schema."""

    name: str
    shape: Mapping[str, Json]
    about: str = ""

    def check(self, value: Json, param: str) -> Json:
        return value

    def schema(self) -> dict[str, Json]:
        return _described(dict(self.shape), self.about)


def read_fields(fields: Iterable[Field], body: JsonObject) -> dict[str, Any]:
    """The checked values of those fields that are present and not null."""
    values = {}
    for field in fields:
        value = body.get(field.name)
        if value is not None:
            values[field.name] = field.check(value, field.name)
    return values


def read_model(body: JsonObject) -> str:
    """The name in `model`, which every request must have."""
    model = body.get("model")
    if model is None:
        raise missing("model", "Say which model to use; GET /v1/models lists them.")
    if not isinstance(model, str):
        raise wrong_type("model", "a string", model)
    if not model.strip():
        raise missing("model", "It is empty; GET /v1/models lists the models there are.")
    if len(model) > MAX_MODEL_NAME:
        raise InvalidRequestError(f"Invalid 'model': a name has at most {MAX_MODEL_NAME} characters.", param="model")
    return model


def parse_object(data: bytes) -> JsonObject:
    """A request body as a JSON object.

    Raises:
        InvalidRequestError: it is not JSON, or not an object.
    """
    if not data:
        raise InvalidRequestError("The request has no body; send a JSON object.", code="invalid_json")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"The request body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise InvalidRequestError(f"The request body must be a JSON object, not {kind_of(body)}.", code="invalid_type")
    return body


def to_json(value: Json, param: str) -> str:
    """A part of the request as JSON text again, for the backend.

    Raises:
        InvalidRequestError: it is nested deeper than can be passed on.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise InvalidRequestError(f"Invalid '{param}': it is nested too deeply.", param=param) from None


def missing(param: str, advice: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Missing required parameter: '{param}'. {advice}", param=param, code="missing_required_parameter"
    )


def wrong_type(param: str, wanted: str, value: Json) -> InvalidRequestError:
    return InvalidRequestError(
        f"Invalid type for '{param}': expected {wanted}, but got {kind_of(value)} instead.",
        param=param,
        code="invalid_type",
    )


def kind_of(value: Json) -> str:
    """A JSON value's type, in words that fit a sentence."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _shown(value: Json) -> str:
    # Errors repeat what was sent, but not a megabyte of it.
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _described(schema: dict[str, Json], about: str) -> dict[str, Json]:
    return {**schema, "description": about} if about else schema
