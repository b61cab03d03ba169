"""Schemas and constraints: what can be followed, and what is refused."""

from typing import Any

import pytest

from backends.errors import InvalidGrammarError, InvalidSchemaError, UnsupportedError
from backends.llama.constraints import grammar_of, rules_of_schema, schema_grammar
from backends.llama.schema import plain_schema
from backends.rpc import backend_pb2 as pb


@pytest.mark.parametrize(
    ("schema", "plain"),
    [
        pytest.param({"title": "x", "type": "string"}, {"type": "string"}, id="notes are dropped"),
        pytest.param(
            {"type": ["object", "null"], "properties": {"a": {"type": "integer"}}},
            {"anyOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"type": "null"}]},
            id="several types become alternatives",
        ),
        pytest.param(
            {"type": "object", "required": ["a"]},
            {"type": "object", "required": ["a"], "properties": {"a": {}}},
            id="a required property nobody describes",
        ),
    ],
)
def test_a_schema_is_rewritten(schema: Any, plain: Any) -> None:
    assert plain_schema(schema) == plain


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        pytest.param({"type": "integer", "minimum": 3}, "schema.minimum", id="a range"),
        pytest.param({"not": {}}, "schema.not", id="a negation"),
        pytest.param({"properties": {"a": {"if": {}}}}, "schema.properties.a.if", id="nested"),
        pytest.param({"anyOf": [{}], "properties": {}}, "properties beside anyOf", id="beside alternatives"),
        pytest.param({"type": "string", "pattern": "a+"}, "start with", id="an open pattern"),
        pytest.param({"$ref": "#/$defs/none"}, "none", id="a reference to nothing"),
        pytest.param({"$ref": "https://example.com/x"}, "cannot be followed", id="a reference elsewhere"),
        pytest.param([], "must be an object", id="not an object"),
        pytest.param({"type": "colour"}, "colour", id="an unknown type"),
        pytest.param({"properties": []}, "schema.properties must be", id="malformed"),
    ],
)
def test_a_schema_that_cannot_be_followed_says_where(schema: Any, reason: str) -> None:
    with pytest.raises(InvalidSchemaError) as caught:
        schema_grammar(schema)

    assert reason in str(caught.value)


def test_rules_get_a_prefix_outside_of_texts_only() -> None:
    schema = {"type": "object", "properties": {"root": {"enum": ["root ::= space"]}}, "required": ["root"]}
    rules, root = rules_of_schema(schema, "t0")

    assert root == "t0-root"
    assert r'"\"root ::= space\""' in rules
    assert all(line.startswith("t0-") for line in rules.splitlines())


def test_choices_are_quoted() -> None:
    choices = pb.Constraint.Choices(texts=["yes", 'a "b"\n'])

    assert grammar_of(pb.Constraint(choices=choices)) == r'root ::= "yes" | "a \"b\"\n"'


def test_a_grammar_is_taken_as_it_is() -> None:
    assert grammar_of(pb.Constraint(grammar='root ::= "x"')) == 'root ::= "x"'


@pytest.mark.parametrize(
    ("constraint", "error"),
    [
        pytest.param(pb.Constraint(regex="a+"), UnsupportedError, id="a regular expression"),
        pytest.param(pb.Constraint(grammar=" "), InvalidGrammarError, id="an empty grammar"),
        pytest.param(pb.Constraint(choices=pb.Constraint.Choices()), InvalidGrammarError, id="no choices"),
        pytest.param(pb.Constraint(json_schema="{"), InvalidSchemaError, id="broken JSON"),
    ],
)
def test_what_is_refused(constraint: pb.Constraint, error: type[Exception]) -> None:
    with pytest.raises(error):
        grammar_of(constraint)
