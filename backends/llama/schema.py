"""What JSON schemas say, apart from how it is written as a grammar: keywords, types, combinations."""

from typing import Any

from backends.errors import InvalidSchemaError

MAX_DEPTH = 64

NOTES = frozenset(
    {
        "$schema", "$id", "$anchor", "$comment", "title", "description", "default", "examples", "deprecated",
        "$defs", "definitions", "readOnly", "writeOnly", "nullable", "strict", "contentEncoding", "contentMediaType",
    }
)  # fmt: skip
"""Keywords that do not narrow what fits. Definitions are looked up where they are referred to."""

RULES_BY_TYPE: dict[str, set[str]] = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"format", "pattern", "minLength", "maxLength"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
"""The keywords that bind values of each type, of those that can be followed."""

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

_DATE = "[1-9][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": "P([0-9]{1,4}D(T[0-9]{1,2}H)?|[0-9]{1,4}W|T[0-9]{1,4}[HMS])",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": f"{_BYTE}(\\.{_BYTE}){{3}}",
    "ipv6": "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}",
    "hostname": f"{_LABEL}(\\.{_LABEL}){{0,3}}",
    "email": f"[a-z0-9_+-]{{1,20}}(\\.[a-z0-9_+-]{{1,20}}){{0,2}}@{_LABEL}(\\.{_LABEL}){{1,3}}",
    "uri": f"https?://{_LABEL}(\\.{_LABEL}){{0,3}}(/[A-Za-z0-9_.~-]{{0,40}}){{0,6}}",
}
"""Formats of strings as regular expressions. They match some of what fits (no 29th of any month), never more."""


def refusal(reason: str) -> InvalidSchemaError:
    """The error of a schema that cannot be followed."""
    return InvalidSchemaError(f"the JSON schema cannot be followed: {reason}", param="response_format")


def fits_type(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a type."""
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "number":
            return not isinstance(value, bool) and isinstance(value, int | float)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case _:
            return value is None


def merged(one: Any, other: Any, place: str) -> dict[str, Any]:
    """A schema that fits what fits both.

    Raises:
        InvalidSchemaError: they cannot be put into one.
    """
    if one is True or other is True:
        one, other = (other, {}) if one is True else (one, {})
    if not isinstance(one, dict) or not isinstance(other, dict):
        raise refusal(f"{place} must be an object")
    result = {key: value for key, value in one.items() if key not in NOTES}
    for key, value in other.items():
        if key in NOTES:
            continue
        result[key] = _both(key, result[key], value, place) if key in result else value
    _check_additional(one, other, place)
    return result


def _both(key: str, one: Any, other: Any, place: str) -> Any:
    if one == other:
        return one
    match key:
        case "properties" if isinstance(one, dict) and isinstance(other, dict):
            return {
                name: merged(one[name], other[name], f"{place}.properties.{name}")
                if name in one and name in other
                else {**one, **other}[name]
                for name in {**one, **other}
            }
        case "required" if isinstance(one, list) and isinstance(other, list):
            return [*one, *(name for name in other if name not in one)]
        case "minimum" | "exclusiveMinimum" | "minLength" | "minItems":
            return max(one, other)
        case "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems":
            return min(one, other)
        case "enum" if isinstance(one, list) and isinstance(other, list):
            return [value for value in one if value in other]
        case "type":
            kinds = [one] if isinstance(one, str) else list(one)
            others = [other] if isinstance(other, str) else list(other)
            common = [kind for kind in kinds if kind in others]
            if "number" in kinds + others and "integer" in kinds + others and not {"number", "integer"} & set(common):
                common.append("integer")
            if common:
                return common
    raise refusal(f"{place}.{key} is said twice and differently, which cannot be followed")


def _check_additional(one: dict[str, Any], other: dict[str, Any], place: str) -> None:
    """`additionalProperties` speaks of the properties beside it; merged, it would speak of more."""
    for mine, theirs in ((one, other), (other, one)):
        others = mine.get("additionalProperties", True)
        known = mine.get("properties", {})
        if others is not True and any(name not in known for name in theirs.get("properties", {})):
            raise refusal(f"{place}.additionalProperties beside properties from elsewhere cannot be followed")


def are_disjoint(alternatives: list[Any]) -> bool:
    """Whether it is plain to see that no value fits two of these."""
    return all(_exclude(one, other) for i, one in enumerate(alternatives) for other in alternatives[i + 1 :])


def _exclude(one: Any, other: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    kinds, others = _types(one), _types(other)
    if kinds and others and not kinds & others:
        return True
    values, other_values = _listed(one), _listed(other)
    if values is not None and other_values is not None:
        return not any(value == second for value in values for second in other_values)
    properties, other_properties = one.get("properties"), other.get("properties")
    if kinds == others == {"object"} and isinstance(properties, dict) and isinstance(other_properties, dict):
        must = set(one.get("required", [])) & set(other.get("required", []))
        return any(
            name in must
            and name in other_properties
            and _listed(properties[name]) is not None
            and _listed(other_properties[name]) is not None
            and _exclude(properties[name], other_properties[name])
            for name in properties
        )
    return False


def _types(schema: dict[str, Any]) -> set[str]:
    kinds = schema.get("type")
    found = {kinds} if isinstance(kinds, str) else set(kinds) if isinstance(kinds, list) else set()
    return found | {"integer"} if "number" in found else found


def _listed(schema: Any) -> list[Any] | None:
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None
