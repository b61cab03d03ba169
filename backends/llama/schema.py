"""JSON schemas in the form that the conversion to a grammar takes right.

What the conversion would ignore or mistake is rewritten where an equal form exists, and refused
where not: an answer that looks constrained but is not would be worse than an error.
"""

from typing import Any

from backends.errors import InvalidSchemaError

MAX_DEPTH = 64

_NOTES = frozenset(
    {
        "$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated",
        "readOnly", "writeOnly", "nullable", "strict", "contentEncoding", "contentMediaType",
    }
)  # fmt: skip
"""Keywords that do not narrow what fits."""

_KNOWN = frozenset(
    {
        "$ref", "$defs", "definitions", "type", "format", "anyOf", "oneOf", "allOf", "const", "enum",
        "properties", "required", "additionalProperties", "items", "prefixItems", "minItems",
        "maxItems", "pattern", "minLength", "maxLength",
    }
)  # fmt: skip
"""Keywords that the conversion enforces."""

_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_DECISIVE = ("$ref", "anyOf", "oneOf", "allOf")
"""The conversion looks at the first of these that is there, and at nothing beside it."""

_BESIDE = frozenset({"$defs", "definitions", "type"})


def plain_schema(schema: Any, place: str = "schema", depth: int = 0) -> Any:
    """The schema, rewritten; it fits no more than the original.

    Raises:
        InvalidSchemaError: not a schema, or one that says what cannot be enforced.
    """
    if depth > MAX_DEPTH:
        raise _refusal(f"{place} is nested too deeply")
    if not isinstance(schema, dict):
        raise _refusal(f"{place} must be an object")
    plain = {key: value for key, value in schema.items() if key not in _NOTES}
    for key in plain:
        if key not in _KNOWN:
            raise _refusal(f"{place}.{key} cannot be enforced by this engine")
    _check_company(plain, place)
    for key in _MAPS:
        if key in plain:
            plain[key] = _map(plain[key], f"{place}.{key}", depth)
    for key in _LISTS:
        if key in plain:
            plain[key] = _list(plain[key], f"{place}.{key}", depth)
    for key in ("items", "additionalProperties"):
        if isinstance(plain.get(key), dict):
            plain[key] = plain_schema(plain[key], f"{place}.{key}", depth + 1)
    _complete_required(plain, place)
    return _one_type(plain)


def _check_company(plain: dict[str, Any], place: str) -> None:
    decisive = [key for key in _DECISIVE if key in plain]
    beside = [key for key in plain if key not in _BESIDE and key not in decisive[:1]]
    if decisive and beside:
        raise _refusal(f"{place}.{beside[0]} beside {decisive[0]} cannot be enforced by this engine")
    for part in plain.get("allOf", ()):
        extra = set(part) - _NOTES - {"properties", "required", "type", "$ref"} if isinstance(part, dict) else ()
        if extra:
            raise _refusal(f"{place}.allOf with {sorted(extra)[0]} cannot be enforced by this engine")
    lengths = {"minLength", "maxLength", "format"} & set(plain)
    if "pattern" in plain and lengths:
        raise _refusal(f"{place}.{min(lengths)} beside pattern cannot be enforced by this engine")
    if "prefixItems" in plain and {"items", "minItems", "maxItems"} & set(plain):
        raise _refusal(f"{place}.prefixItems beside other rules for items cannot be enforced by this engine")


def _map(value: Any, place: str, depth: int) -> Any:
    if not isinstance(value, dict):
        raise _refusal(f"{place} must be an object")
    return {name: plain_schema(inner, f"{place}.{name}", depth + 1) for name, inner in value.items()}


def _list(value: Any, place: str, depth: int) -> Any:
    if not isinstance(value, list) or not value:
        raise _refusal(f"{place} must be a non-empty array")
    return [plain_schema(inner, f"{place}[{i}]", depth + 1) for i, inner in enumerate(value)]


def _complete_required(plain: dict[str, Any], place: str) -> None:
    """A required property that is not described may be anything, but it must be there."""
    required = plain.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise _refusal(f"{place}.required must be an array of names")
    missing: dict[str, Any] = {name: {} for name in required if name not in plain.get("properties", {})}
    if missing:
        plain["properties"] = {**plain.get("properties", {}), **missing}


def _one_type(plain: dict[str, Any]) -> dict[str, Any]:
    """Several types become alternatives: the conversion would drop what else is said of them."""
    kinds = plain.get("type")
    if not isinstance(kinds, list) or "enum" in plain or "const" in plain:
        return plain
    outer: dict[str, Any] = {key: plain[key] for key in ("$defs", "definitions") if key in plain}
    inner = {key: value for key, value in plain.items() if key not in outer}
    if any(key in inner for key in _DECISIVE):
        return {**plain, "type": None}
    return {**outer, "anyOf": [_only(inner, kind) for kind in kinds]}


_RULES_OF = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"format", "pattern", "minLength", "maxLength"},
}


def _only(schema: dict[str, Any], kind: str) -> dict[str, Any]:
    own = _RULES_OF.get(kind, set())
    return {"type": kind, **{key: value for key, value in schema.items() if key in own}}


def _refusal(reason: str) -> InvalidSchemaError:
    return InvalidSchemaError(f"the JSON schema cannot be followed: {reason}", param="response_format")
