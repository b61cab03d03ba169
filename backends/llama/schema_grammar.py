"""JSON schemas as GBNF: every text that the grammar makes is JSON that fits the schema.

Where a schema allows more than is worth following (properties in any order, properties nobody
named, whole numbers of any length), the grammar makes some of it. What it cannot follow is refused,
with the place in the schema: an answer that looks constrained but is not would be worse than an error.
"""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from backends.errors import InvalidGrammarError
from backends.llama.call_grammar import literal
from backends.llama.number_grammar import decimal_grammar, integer_grammar, just_inside
from backends.llama.regex_grammar import regex_grammar
from backends.llama.schema import (
    FORMATS,
    MAX_DEPTH,
    NOTES,
    RULES_BY_TYPE,
    TYPES,
    are_disjoint,
    fits_type,
    merged,
    refusal,
)

MAX_REPEATS = 2000
"""Of one part. llama.cpp writes repetitions out, and takes no more."""

MAX_PARTS = 5_000
"""Schemas within the schema, references followed."""

_PRIMITIVES = {
    "space": '(" " | "\\n" [ \\t]{0,20})?',
    "char": '[^"\\\\\\x00-\\x1f\\x7f-\\x9f] | "\\\\" ["\\\\bfnrt]',
    "string": '"\\"" char* "\\""',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,14})',
    "number": 'integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "pair": 'string space ":" space value',
    "object": '"{" space (pair (space "," space pair)*)? space "}"',
    "array": '"[" space (value (space "," space value)*)? space "]"',
    "value": "object | array | string | number | boolean | null",
}
_NEEDS = {
    "string": ("char",),
    "number": ("integer",),
    "pair": ("string", "space", "value"),
    "object": ("space", "pair"),
    "array": ("space", "value"),
    "value": ("object", "array", "string", "number", "boolean", "null"),
}


def schema_rules(schema: Any, prefix: str = "") -> tuple[str, str]:
    """The rules of all JSON texts that fit `schema`, and the name of their root.

    Raises:
        InvalidSchemaError: not a schema, or one that says what cannot be followed.
    """
    writer = _Writer(schema, prefix)
    try:
        writer.rules["root"] = writer.expression(schema, "schema", 0)
    except RecursionError as exc:
        raise refusal("it is nested too deeply") from exc
    lines = [f"{writer.name(rule)} ::= {text}" for rule, text in writer.rules.items()]
    return "\n".join(lines), writer.name("root")


class _Writer:
    """Writes rules. Names are given by the order in which parts are met."""

    def __init__(self, schema: Any, prefix: str) -> None:
        self.rules: dict[str, str] = {}
        self._prefix = f"{prefix}-" if prefix else ""
        self._schema = schema
        self._parts = 0
        self._by_ref: dict[str, str] = {}
        self._by_type: dict[str, Callable[[dict[str, Any], str, int], str]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": lambda schema, place, _: self._number(schema, place, whole=True),
            "number": lambda schema, place, _: self._number(schema, place, whole=False),
        }

    def name(self, rule: str) -> str:
        """A rule's name in the grammar."""
        return self._prefix + rule

    def expression(self, schema: Any, place: str, depth: int) -> str:
        """What fits `schema`, as the right side of a rule."""
        self._parts += 1
        if depth > MAX_DEPTH or self._parts > MAX_PARTS:
            raise refusal(f"{place} is nested too deeply or too large")
        if schema is True:
            return self._primitive("value")
        if not isinstance(schema, dict):
            raise refusal(f"{place} must be an object")
        schema = {key: value for key, value in schema.items() if key not in NOTES}
        if list(schema) == ["$ref"]:
            return self._referred(schema["$ref"], f"{place}.$ref", depth)
        schema = self._without_composition(schema, place, depth)
        if alternatives := schema.pop("anyOf", None):
            return self._any_of(schema, alternatives, place, depth)
        if "const" in schema or "enum" in schema:
            return self._values(schema, place)
        return self._of_types(schema, place, depth)

    # ------------------------------------------------------------ references and combinations

    def _referred(self, reference: Any, place: str, depth: int) -> str:
        if reference not in self._by_ref:
            target = self._resolved(reference, place)
            rule = self._by_ref[reference] = f"ref{len(self._by_ref)}"
            self.rules[rule] = ""
            self.rules[rule] = self.expression(target, str(reference), depth + 1)
        return self.name(self._by_ref[reference])

    def _resolved(self, reference: Any, place: str) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise refusal(f"{place}: {reference!r} does not point into this schema (#/...)")
        found = self._schema
        for step in reference[2:].split("/") if len(reference) > 1 else ():
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdigit() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                raise refusal(f"{place}: there is nothing at {reference!r}")
        return found

    def _without_composition(self, schema: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        """`$ref` beside other rules, `allOf` and `oneOf` become plain rules or `anyOf`."""
        for _ in range(MAX_DEPTH):
            if "$ref" in schema and len(schema) > 1:
                target = self._resolved(schema["$ref"], f"{place}.$ref")
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = merged(rest, target, place)
            elif "allOf" in schema:
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                for i, part in enumerate(_list(schema["allOf"], f"{place}.allOf")):
                    if isinstance(part, dict) and "$ref" in part:
                        part = merged(
                            {key: value for key, value in part.items() if key != "$ref"},
                            self._resolved(part["$ref"], f"{place}.allOf[{i}].$ref"),
                            f"{place}.allOf[{i}]",
                        )
                    rest = merged(rest, part, f"{place}.allOf[{i}]")
                schema = rest
            elif "oneOf" in schema:
                parts = _list(schema["oneOf"], f"{place}.oneOf")
                plain = [self._looked_up(part, f"{place}.oneOf[{i}]") for i, part in enumerate(parts)]
                if not are_disjoint(plain):
                    raise refusal(
                        f"{place}.oneOf cannot be followed unless its alternatives exclude each other by type or by"
                        " the constant of a required property; use anyOf"
                    )
                rest = {key: value for key, value in schema.items() if key != "oneOf"}
                if "anyOf" in rest:
                    raise refusal(f"{place}.oneOf beside anyOf cannot be followed")
                schema = {**rest, "anyOf": parts}
            else:
                return schema
        raise refusal(f"{place} refers to itself without end")

    def _looked_up(self, schema: Any, place: str) -> Any:
        if isinstance(schema, dict) and "$ref" in schema:
            return self._resolved(schema["$ref"], f"{place}.$ref")
        return schema

    def _any_of(self, rest: dict[str, Any], alternatives: Any, place: str, depth: int) -> str:
        ways = []
        for i, way in enumerate(_list(alternatives, f"{place}.anyOf")):
            where = f"{place}.anyOf[{i}]"
            if rest:
                way = merged(rest, self._looked_up(way, where), where)
            ways.append(self.expression(way, where, depth + 1))
        return "(" + " | ".join(ways) + ")"

    # ------------------------------------------------------------ values

    def _values(self, schema: dict[str, Any], place: str) -> str:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not isinstance(values, list) or not values:
            raise refusal(f"{place}.enum must be a non-empty array")
        if "const" in schema and "enum" in schema:
            values = [value for value in values if value in schema["enum"]]
        beside = [key for key in schema if key not in ("const", "enum", "type")]
        if beside:
            raise refusal(f"{place}.{beside[0]} beside {'const' if 'const' in schema else 'enum'} cannot be followed")
        kinds = _kinds(schema.get("type"), place)
        values = [value for value in values if not kinds or any(fits_type(value, kind) for kind in kinds)]
        if not values:
            raise refusal(f"{place}: no value fits")
        return "(" + " | ".join(literal(json.dumps(value, ensure_ascii=False)) for value in values) + ")"

    def _of_types(self, schema: dict[str, Any], place: str, depth: int) -> str:
        rules = {key for key in schema if key != "type"}
        known = set().union(*RULES_BY_TYPE.values())
        unknown = sorted(rules - known)
        if unknown:
            raise refusal(f"{place}.{unknown[0]} cannot be followed")
        kinds = _kinds(schema.get("type"), place) or _kinds_of_rules(rules)
        if not kinds:
            return self._primitive("value")
        if "number" in kinds:
            kinds = [kind for kind in kinds if kind != "integer"]
        ways = []
        for kind in kinds:
            own = {key: schema[key] for key in rules & RULES_BY_TYPE.get(kind, set())}
            write = self._by_type.get(kind)
            ways.append(write(own, place, depth) if write and own else self._primitive(kind))
        return ways[0] if len(ways) == 1 else f"({' | '.join(ways)})"

    def _number(self, schema: dict[str, Any], place: str, *, whole: bool) -> str:
        if schema.get("multipleOf", 1) != 1 or (not whole and "multipleOf" in schema):
            raise refusal(f"{place}.multipleOf cannot be followed")
        lows: list[Decimal] = []
        highs: list[Decimal] = []
        for key, bounds, upwards in (("minimum", lows, True), ("maximum", highs, False)):
            exclusive = f"exclusive{key.capitalize()}"
            bound, outside = _number(schema, key, place), _number(schema, exclusive, place)
            if bound is not None:
                bounds.append(bound)
            if outside is not None:
                bounds.append(just_inside(outside, upwards=upwards, whole=whole))
        low, high = max(lows, default=None), min(highs, default=None)
        if low is None and high is None:
            return self._primitive("integer" if whole else "number")
        grammar = (integer_grammar if whole else decimal_grammar)(low, high)
        if grammar is None:
            raise refusal(f"{place}: there is no such number between its bounds")
        return self._rule(grammar)

    def _string(self, schema: dict[str, Any], place: str, _: int) -> str:
        exact = [key for key in ("pattern", "format") if key in schema]
        lengths = [key for key in ("minLength", "maxLength") if key in schema]
        if len(exact) > 1 or (exact and lengths):
            raise refusal(f"{place}.{[*exact, *lengths][1]} beside {exact[0]} cannot be followed")
        if exact == ["pattern"]:
            if not isinstance(schema["pattern"], str):
                raise refusal(f"{place}.pattern must be a string")
            try:
                inner = regex_grammar(schema["pattern"], in_json=True, whole=False)
            except InvalidGrammarError as exc:
                raise refusal(f"{place}.pattern: {exc}") from exc
        elif exact:
            pattern = FORMATS.get(schema["format"]) if isinstance(schema["format"], str) else None
            if pattern is None:
                raise refusal(f"{place}.format {schema['format']!r} cannot be followed; known: {', '.join(FORMATS)}")
            inner = regex_grammar(pattern, in_json=True)
        else:
            inner = f"{self._primitive('char')}{_times(schema, 'minLength', 'maxLength', place)}"
        return self._rule(f'"\\"" {inner} "\\""')

    # ------------------------------------------------------------ arrays and objects

    def _array(self, schema: dict[str, Any], place: str, depth: int) -> str:
        if schema.get("uniqueItems"):
            raise refusal(f"{place}.uniqueItems cannot be followed")
        prefix = schema.get("prefixItems", [])
        if not isinstance(prefix, list):
            raise refusal(f"{place}.prefixItems must be an array")
        least, most = _bounds(schema, "minItems", "maxItems", place)
        first = [self.expression(part, f"{place}.prefixItems[{i}]", depth + 1) for i, part in enumerate(prefix)]
        first = first if most is None else first[:most]
        space, rest = self._primitive("space"), schema.get("items", True)
        left = None if most is None else most - len(first)
        least = max(0, least - len(first))
        if rest is False and least:
            raise refusal(f"{place}.minItems is more than the items there are")
        parts = [f' {space} "," {space} '.join(first)] if first else []
        if rest is not False and left != 0 and ("items" in schema or not first or least):
            item = self._rule(self.expression(rest, f"{place}.items", depth + 1))
            parts.append(_series(item, f'{space} "," {space}', least, left, after_others=bool(first)))
        return self._rule(" ".join(['"["', space, *parts, space, '"]"']))

    def _object(self, schema: dict[str, Any], place: str, depth: int) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict):
            raise refusal(f"{place}.properties must be an object")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise refusal(f"{place}.required must be an array of names")
        others = schema.get("additionalProperties", True)
        unnamed = [name for name in required if name not in properties]
        if unnamed and others is False:
            raise refusal(f"{place}.required: {unnamed[0]!r} is not among the properties there may be")
        named = {**properties, **dict.fromkeys(unnamed, others)}
        space = self._primitive("space")
        pairs = []
        for name, inner in named.items():
            value = self.expression(inner, f"{place}.properties.{name}", depth + 1) if inner is not False else ""
            if not value and name in required:
                raise refusal(f"{place}.properties.{name} is required and forbidden")
            if value:
                key = literal(json.dumps(name, ensure_ascii=False))
                pairs.append((self._rule(f'{key} {space} ":" {space} {value}'), name in required))
        more = None
        if ("additionalProperties" in schema and others is not False) or (not named and others is not False):
            value = self.expression(others, f"{place}.additionalProperties", depth + 1)
            more = self._rule(f'{self._other_key(named)} {space} ":" {space} {value}')
        return self._rule(f'"{{" {space} {self._pairs(pairs, more)} {space} "}}"')

    def _other_key(self, names: Sequence[str] | dict[str, Any]) -> str:
        """A name that is none of these: it begins with another character."""
        if not names:
            return self._primitive("string")
        firsts = "".join(sorted({name[0] for name in names if name}))
        taken = "".join(f"\\U{ord(character):08x}" for character in firsts)
        return self._rule(f'"\\"" [^"\\\\\\x00-\\x1f\\x7f-\\x9f{taken}] {self._primitive("char")}* "\\""')

    def _pairs(self, pairs: Sequence[tuple[str, bool]], more: str | None) -> str:
        """The pairs in order, commas between those that are there."""
        comma = f'{self._primitive("space")} "," {self._primitive("space")}'
        tail = f"({comma} {more})*" if more else ""
        after = tail  # What may follow a pair, from the last one backwards.
        first = f"({more} {tail})?" if more else ""  # What may stand where nothing is written yet.
        for pair, is_required in reversed(pairs):
            rest = self._rule(after) if after else ""
            if is_required:
                first, after = f"{pair} {rest}", f"{comma} {pair} {rest}"
            else:
                first = f"({pair} {rest} | {first})" if first else f"({pair} {rest})?"
                after = f"({comma} {pair})? {rest}"
        return first

    # ------------------------------------------------------------ rules

    def _primitive(self, rule: str) -> str:
        if rule not in self.rules:
            text = _PRIMITIVES[rule]
            self.rules[rule] = ""
            names = {need: self._primitive(need) for need in _NEEDS.get(rule, ())}
            self.rules[rule] = " ".join(_renamed(word, names) for word in text.split(" ")) if self._prefix else text
        return self.name(rule)

    def _rule(self, text: str) -> str:
        rule = f"part{len(self.rules)}"
        self.rules[rule] = text
        return self.name(rule)


def _renamed(word: str, names: dict[str, str]) -> str:
    bare = word.strip("()*?")
    return word.replace(bare, names[bare]) if bare in names else word


def _series(item: str, comma: str, least: int, most: int | None, *, after_others: bool) -> str:
    last = "" if most is None else most
    if after_others:
        return f"({comma} {item}){{{least},{last}}}"
    rest = f"({comma} {item}){{{max(0, least - 1)},{'' if most is None else most - 1}}}"
    return f"{item} {rest}" if least else f"({item} {rest})?"


def _times(schema: dict[str, Any], least: str, most: str, place: str) -> str:
    low, high = _bounds(schema, least, most, place)
    return f"{{{low},{'' if high is None else high}}}"


def _bounds(schema: dict[str, Any], least: str, most: str, place: str) -> tuple[int, int | None]:
    values: list[int | None] = []
    for key in (least, most):
        value = schema.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise refusal(f"{place}.{key} must be a whole number")
        if value is not None and value > MAX_REPEATS:
            raise refusal(f"{place}.{key} cannot be followed beyond {MAX_REPEATS}")
        values.append(value)
    low, high = values
    if high is not None and (low or 0) > high:
        raise refusal(f"{place}.{least} is more than {most}")
    return low or 0, high


def _number(schema: dict[str, Any], key: str, place: str) -> Decimal | None:
    value = schema.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal(f"{place}.{key} must be a number")
    return Decimal(str(value))


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise refusal(f"{place} must be a non-empty array")
    return value


def _kinds(kinds: Any, place: str) -> list[str]:
    if kinds is None:
        return []
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or not kinds:
        raise refusal(f"{place}.type must be a type or an array of types")
    for kind in kinds:
        if kind not in TYPES:
            raise refusal(f"{place}.type: {kind!r} is no type")
    return list(dict.fromkeys(kinds))


def _kinds_of_rules(rules: set[str]) -> list[str]:
    """Rules without a type: they bind values of their own type, so values of that type are made."""
    return [kind for kind in ("object", "array", "string", "number") if rules & RULES_BY_TYPE[kind]]
