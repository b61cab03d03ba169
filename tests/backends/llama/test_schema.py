"""Schemas and constraints: what can be followed, and what is refused."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import InvalidGrammarError, InvalidSchemaError
from backends.llama.call_grammar import literal
from backends.llama.constraints import grammar_of, prefixed, rules_of_schema, schema_grammar
from backends.llama.number_grammar import decimal_grammar, integer_grammar
from backends.llama.regex_grammar import regex_grammar
from backends.rpc import backend_pb2 as pb
from tests.backends.llama.gbnf import matches


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        pytest.param({"not": {}}, "schema.not", id="a negation"),
        pytest.param({"properties": {"a": {"if": {}}}}, "schema.properties.a.if", id="nested"),
        pytest.param(
            {"$ref": "#/$defs/none"}, "schema.$ref: there is nothing at '#/$defs/none'", id="a lost reference"
        ),
        pytest.param({"$ref": "https://example.com/x"}, "does not point into this schema", id="a reference elsewhere"),
        pytest.param([], "schema must be an object", id="not an object"),
        pytest.param({"type": "colour"}, "schema.type: 'colour'", id="an unknown type"),
        pytest.param({"properties": []}, "schema.properties must be", id="malformed"),
        pytest.param({"items": {"pattern": "(?=a)"}}, "schema.items.pattern", id="a pattern that looks ahead"),
        pytest.param({"type": "string", "format": "colour"}, "schema.format 'colour'", id="an unknown format"),
        pytest.param({"format": "date", "minLength": 3}, "schema.minLength beside format", id="two rules for a text"),
        pytest.param({"type": "string", "maxLength": 9999}, "schema.maxLength", id="too long to write out"),
        pytest.param({"type": "integer", "minimum": 3, "maximum": 2}, "no such number", id="an empty range"),
        pytest.param({"type": "number", "multipleOf": 0.5}, "schema.multipleOf", id="steps"),
        pytest.param({"uniqueItems": True}, "schema.uniqueItems", id="unique items"),
        pytest.param(
            {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "schema.oneOf", id="one of several that fit"
        ),
        pytest.param({"enum": ["a"], "type": "integer"}, "no value fits", id="values of another type"),
        pytest.param({"minProperties": 1}, "schema.minProperties", id="a count of properties"),
        pytest.param(
            {"required": ["a"], "additionalProperties": False}, "schema.required: 'a'", id="required but not allowed"
        ),
        pytest.param(
            {"allOf": [{"type": "string"}, {"type": "null"}]},
            "schema.allOf[1].type",
            id="parts that exclude each other",
        ),
        pytest.param({"anyOf": [{"$ref": "#"}], "type": "object"}, "nested too deeply", id="itself for ever"),
    ],
)
def test_a_schema_that_cannot_be_followed_says_where(schema: Any, reason: str) -> None:
    with pytest.raises(InvalidSchemaError) as caught:
        schema_grammar(schema)

    assert reason in str(caught.value)


DISCRIMINATED = {
    "oneOf": [
        {"type": "object", "properties": {"kind": {"const": kind}, key: {"type": "integer"}}, "required": ["kind", key]}
        for kind, key in (("a", "x"), ("b", "y"))
    ]
}
NODE = {
    "$ref": "#/$defs/node",
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": []}},
}


@pytest.mark.parametrize(
    ("schema", "fitting", "unfitting"),
    [
        pytest.param({"type": ["string", "null"], "maxLength": 2}, ['"ab"', "null"], ['"abc"', "1"], id="two types"),
        pytest.param(
            {"type": "integer", "minimum": -3, "exclusiveMaximum": 12}, ["-3", "11"], ["-4", "12"], id="range"
        ),
        pytest.param(
            {"type": "number", "minimum": 0, "maximum": 1}, ["0", "0.25", "1.00"], ["1.01", "-0.1"], id="share"
        ),
        pytest.param({"type": "string", "pattern": "^[A-Z]{2}\\d$"}, ['"AB1"'], ['"AB"', '"xAB1"'], id="pattern"),
        pytest.param({"type": "string", "pattern": "b"}, ['"abc"', '"b"'], ['"ac"'], id="a pattern anywhere"),
        pytest.param({"type": "string", "pattern": '^"\\n$'}, ['"\\"\\n"'], ['"""'], id="a pattern of what is escaped"),
        pytest.param({"format": "date"}, ['"2026-11-23"'], ['"2026-13-01"', '"2026-02-30"'], id="date"),
        pytest.param({"format": "ipv4"}, ['"10.0.255.1"'], ['"10.0.256.1"'], id="ipv4"),
        pytest.param(
            {"properties": {"a": {}, "b": {"type": "null"}}, "required": ["b"]},
            ['{"b": null}', '{"a": [1, {}], "b": null}'],
            ['{"a": 1}', '{"b": 1}', "{}", '{"b": null,}'],
            id="properties, some of them required",
        ),
        pytest.param(
            {"properties": {"a": {"const": 1}, "b": {"const": 2}}},
            ["{}", '{"a": 1}', '{"b": 2}', '{"a": 1, "b": 2}'],
            ['{"a": 1 "b": 2}', '{,"b": 2}'],
            id="only optional ones",
        ),
        pytest.param(
            {"properties": {"a": {"const": 1}}, "additionalProperties": {"type": "null"}},
            ['{"a": 1, "c": null}', '{"c": null}'],
            ['{"a": null}', '{"c": 1}'],
            id="and others",
        ),
        pytest.param({"type": "object", "required": ["a"]}, ['{"a": 5}'], ["{}"], id="required, not described"),
        pytest.param(
            {
                "properties": {"a": {"const": 1}, "b": {"const": 2}},
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            ['{"a": 1}', '{"b": 2}'],
            ["{}"],
            id="alternatives beside properties",
        ),
        pytest.param(
            DISCRIMINATED, ['{"kind": "a", "x": 1}'], ['{"kind": "a", "y": 1}'], id="one of, told by a constant"
        ),
        pytest.param(
            {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": {"const": 2}}}]},
            ['{"a": 1, "b": 2}', '{"a": 1}'],
            ['{"b": 2}'],
            id="all of",
        ),
        pytest.param(NODE, ["{}", '{"next": {"next": {}}}'], ['{"next": 1}'], id="itself inside"),
        pytest.param(
            {"prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}, "maxItems": 3},
            ["[1, 2]", "[1, 2, 3]"],
            ["[1]", "[1, 2, 3, 3]"],
            id="a tuple, then others",
        ),
        pytest.param(
            {"items": {"const": 1}, "minItems": 2, "maxItems": 3}, ["[1, 1]"], ["[1]", "[1,1,1,1]"], id="counts"
        ),
        pytest.param({"enum": ["a", 'b"\\', 1, None]}, ['"a"', '"b\\"\\\\"', "1", "null"], ['"b"'], id="values"),
        pytest.param({"const": {"a": [1]}}, ['{"a": [1]}'], ["{}"], id="a constant object"),
        pytest.param({}, ["1", "[]", '{"a": "b"}', "-0.5e3"], ["01", "[1,]", "x"], id="anything"),
    ],
)
def test_what_fits_a_schema_is_followed_and_nothing_else(schema: Any, fitting: list[str], unfitting: list[str]) -> None:
    grammar = schema_grammar(schema)

    assert [text for text in fitting if not matches(grammar, text)] == []
    assert [text for text in unfitting if matches(grammar, text)] == []


whole_numbers = st.integers(-5000, 5000)


@given(whole_numbers, st.integers(0, 3000), whole_numbers)
def test_integers_in_a_range_and_no_others(low: int, size: int, number: int) -> None:
    grammar = integer_grammar(Decimal(low), Decimal(low + size))

    for value in (low, low + size, low - 1, low + size + 1, number):
        assert matches(f"root ::= {grammar}", str(value)) == (low <= value <= low + size)


@given(whole_numbers, whole_numbers)
def test_integers_with_one_bound(bound: int, number: int) -> None:
    assert matches(f"root ::= {integer_grammar(Decimal(bound), None)}", str(number)) == (number >= bound)
    assert matches(f"root ::= {integer_grammar(None, Decimal(bound))}", str(number)) == (number <= bound)


cents = st.decimals(-50, 50, places=2)


@given(cents, cents, cents)
def test_decimals_in_a_range_and_no_others(low: Decimal, high: Decimal, number: Decimal) -> None:
    low, high = min(low, high), max(low, high)
    grammar = decimal_grammar(low, high)
    assert grammar is not None

    for value in (low, high, number):
        text = f"{value:.2f}".replace("-0.00", "0.00")
        assert matches(f"root ::= {grammar}", text) == (low <= value <= high)


@pytest.mark.parametrize(
    ("pattern", "fitting", "unfitting"),
    [
        (r"\d{3}-[a-f]+", ["123-abc"], ["12-a", "123-", "123-g"]),
        (r"^(yes|no)\.?$", ["yes", "no."], ["yes..", "maybe"]),
        (r"[^\s,]+", ["a-ü"], ["a b", "a,"]),
        (r"(?:ab){2,3}", ["abab", "ababab"], ["ab", "abababab"]),
        (r".*", ["", "any thing"], ["a\nb"]),
        (r"\$\w\W", ["$a!"], ["$ab"]),
    ],
)
def test_a_regular_expression_is_matched_as_a_whole(pattern: str, fitting: list[str], unfitting: list[str]) -> None:
    grammar = grammar_of(pb.Constraint(regex=pattern))
    assert grammar is not None

    assert [text for text in fitting if not matches(grammar, text)] == []
    assert [text for text in unfitting if matches(grammar, text)] == []


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a(?=b)", "looking ahead or back cannot be followed (at position 1)"),
        (r"(a)\1", "groupref"),
        ("(?i)a", "flags"),
        (r"a\bb", "anchors can be followed at the ends only (at position 1)"),
        ("a(", "at position 1"),
        ("a{5000}", "more than 1000 repetitions"),
        ("((a{900}){900}){900}", "repeats too much"),
    ],
)
def test_a_regular_expression_that_cannot_be_followed_says_where(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidGrammarError) as caught:
        regex_grammar(pattern)

    assert reason in str(caught.value)
    assert caught.value.param == "regex"


def test_rules_get_a_prefix() -> None:
    schema = {"type": "object", "properties": {"root": {"enum": ["root ::= space"]}}, "required": ["root"]}
    rules, root = rules_of_schema(schema, "t0")

    assert root == "t0-root"
    assert r'"\"root ::= space\""' in rules
    assert all(line.startswith("t0-") for line in rules.splitlines())
    assert matches(f"{rules}\nroot ::= {root}", '{"root": "root ::= space"}')


def test_a_prefix_leaves_texts_and_sets_alone() -> None:
    assert prefixed('root ::= word "word" [word]\nword ::= "x"', "p") == (
        'p-root ::= p-word "word" [word]\np-word ::= "x"',
        "p-root",
    )


def test_a_tools_schema_is_refused_as_a_tools() -> None:
    with pytest.raises(InvalidSchemaError) as caught:
        rules_of_schema({"not": {}}, "t0")

    assert caught.value.param == "tools"


@given(st.text(max_size=20))
def test_any_text_can_be_written_in_a_grammar(text: str) -> None:
    assert matches(f"root ::= {literal(text)}", text)
    assert matches(f"root ::= {literal(json.dumps(text))}", json.dumps(text))


def test_choices_are_quoted() -> None:
    choices = pb.Constraint.Choices(texts=["yes", 'a "b"\n'])

    assert grammar_of(pb.Constraint(choices=choices)) == r'root ::= "yes" | "a \"b\"\n"'


def test_a_grammar_is_taken_as_it_is() -> None:
    assert grammar_of(pb.Constraint(grammar='root ::= "x"')) == 'root ::= "x"'


@pytest.mark.parametrize(
    ("constraint", "error"),
    [
        pytest.param(pb.Constraint(grammar=" "), InvalidGrammarError, id="an empty grammar"),
        pytest.param(pb.Constraint(choices=pb.Constraint.Choices()), InvalidGrammarError, id="no choices"),
        pytest.param(pb.Constraint(json_schema="{"), InvalidSchemaError, id="broken JSON"),
    ],
)
def test_what_is_refused(constraint: pb.Constraint, error: type[Exception]) -> None:
    with pytest.raises(error):
        grammar_of(constraint)
