"""Constraints as GBNF grammars: JSON schemas, any JSON object, one of some texts, a grammar as it is.

The conversion from a schema is llama-cpp-python's; `schema.py` brings schemas into the form that it
takes right.
"""

import json
import re
from typing import Any

from llama_cpp import llama_grammar

from backends.errors import InvalidGrammarError, InvalidSchemaError, UnsupportedError
from backends.llama.schema import plain_schema
from backends.rpc import backend_pb2 as pb

_RULE = re.compile(r"^\s*([a-zA-Z0-9-]+)\s*::=", re.MULTILINE)


def grammar_of(constraint: pb.Constraint) -> str | None:
    """The grammar an answer must follow; None if it is free.

    Raises:
        InvalidSchemaError: the schema is not one, or says what cannot be enforced.
        InvalidGrammarError: an empty grammar or list of texts.
        UnsupportedError: a regular expression.
    """
    kind = constraint.WhichOneof("kind")
    if kind == "json_schema":
        return schema_grammar(_read(constraint.json_schema))
    if kind == "json_object":
        return schema_grammar({"type": "object"}) if constraint.json_object else None
    if kind == "grammar":
        if not constraint.grammar.strip():
            raise InvalidGrammarError("the grammar is empty", param="grammar")
        return constraint.grammar
    if kind == "choices":
        if not constraint.choices.texts:
            raise InvalidGrammarError("there is nothing to choose from", param="choices")
        return "root ::= " + " | ".join(_literal(text) for text in constraint.choices.texts)
    if kind == "regex":
        raise UnsupportedError("the llama engine cannot follow regular expressions yet", param="regex")
    return None


def schema_grammar(schema: Any) -> str:
    """The grammar of all JSON texts that fit `schema`.

    Raises:
        InvalidSchemaError: not a schema, or one that says what cannot be enforced.
    """
    plain = plain_schema(schema)
    try:
        return str(llama_grammar.json_schema_to_gbnf(json.dumps(plain)))
    except (AssertionError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        reason = str(exc) or type(exc).__name__
        raise InvalidSchemaError(f"the JSON schema cannot be followed: {reason}", param="response_format") from exc


def rules_of_schema(schema: Any, prefix: str) -> tuple[str, str]:
    """The rules of `schema` with `prefix` before their names, and the name of their root."""
    return prefixed(schema_grammar(schema), prefix)


def prefixed(grammar: str, prefix: str) -> tuple[str, str]:
    """The rules of a grammar with `prefix` before their names, and the name of its root."""
    names = _RULE.findall(grammar)
    known = re.compile(rf"(?<![\w-])({'|'.join(sorted(map(re.escape, names), key=len, reverse=True))})(?![\w-])")
    rules = [_outside_quotes(line, lambda part: known.sub(rf"{prefix}-\1", part)) for line in grammar.splitlines()]
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


def _literal(text: str) -> str:
    escaped = json.dumps(text, ensure_ascii=False)
    return re.sub(r"[\x00-\x1f]", lambda m: f"\\x{ord(m.group()):02x}", escaped)
