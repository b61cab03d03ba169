"""Constraints as GBNF grammars: JSON schemas, any JSON object, regular expressions, one of some texts,
a grammar as it is."""

import json
import re
from typing import Any

from backends.errors import InvalidGrammarError, InvalidSchemaError
from backends.llama.call_grammar import literal
from backends.llama.gbnf import check_grammar
from backends.llama.regex_grammar import regex_grammar
from backends.llama.schema_grammar import schema_rules
from backends.rpc import backend_pb2 as pb

_RULE = re.compile(r"^\s*([a-zA-Z0-9-]+)\s*::=", re.MULTILINE)


def grammar_of(constraint: pb.Constraint) -> str | None:
    """The grammar an answer must follow; None if it is free.

    Raises:
        InvalidSchemaError: the schema is not one, or says what cannot be enforced.
        InvalidGrammarError: an empty grammar or list of texts, or a regular expression that cannot be followed.
    """
    kind = constraint.WhichOneof("kind")
    if kind == "json_schema":
        return schema_grammar(_read(constraint.json_schema))
    if kind == "json_object":
        return schema_grammar({"type": "object"}) if constraint.json_object else None
    if kind == "grammar":
        if not constraint.grammar.strip():
            raise InvalidGrammarError("the grammar is empty", param="grammar")
        check_grammar(constraint.grammar)
        return constraint.grammar
    if kind == "choices":
        if not constraint.choices.texts:
            raise InvalidGrammarError("there is nothing to choose from", param="choices")
        return "root ::= " + " | ".join(literal(text) for text in constraint.choices.texts)
    if kind == "regex":
        return f"root ::= {regex_grammar(constraint.regex)}"
    return None


def schema_grammar(schema: Any) -> str:
    """The grammar of all JSON texts that fit `schema`.

    Raises:
        InvalidSchemaError: not a schema, or one that says what cannot be enforced.
    """
    return schema_rules(schema)[0]


def rules_of_schema(schema: Any, prefix: str) -> tuple[str, str]:
    """The rules of a tool's `schema` with `prefix` before their names, and the name of their root."""
    try:
        return schema_rules(schema, prefix)
    except InvalidSchemaError as exc:
        raise InvalidSchemaError(str(exc), param="tools") from exc


def prefixed(grammar: str, prefix: str) -> tuple[str, str]:
    """The rules of a grammar with `prefix` before their names, and the name of its root."""
    names = _RULE.findall(grammar)
    known = re.compile(rf"(?<![\w-])({'|'.join(sorted(map(re.escape, names), key=len, reverse=True))})(?![\w-])")
    rules = [_outside_quotes(line, lambda part: known.sub(rf"{prefix}-\1", part)) for line in grammar.split("\n")]
    return "\n".join(rules), f"{prefix}-root"


def _outside_quotes(line: str, change: Any) -> str:
    """`change` applied to what is neither a quoted text nor a set of characters."""
    parts = re.split(r'("(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\])', line)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InvalidSchemaError(f"the JSON schema is not valid JSON: {exc}", param="response_format") from exc
