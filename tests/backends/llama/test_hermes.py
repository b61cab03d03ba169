"""Tool calls as Hermes and Qwen models write them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.llama.call_parser import CallParser
from backends.llama.hermes import STYLE
from backends.llama.tool_formats import FORMATS
from backends.llama.tools import CallArguments, CallBegun, Text, Tool

Read = tuple[str, list[tuple[str, str]]]


def read(pieces: list[str]) -> Read:
    """The text and the calls of an answer that arrives in pieces."""
    parser = CallParser(STYLE, [Tool("add", {}), Tool("weather", {})])
    parts = [part for piece in pieces for part in parser.feed(piece)] + parser.flush()
    text = "".join(part.text for part in parts if isinstance(part, Text))
    names = [part.name for part in parts if isinstance(part, CallBegun)]
    arguments = [
        "".join(p.text for p in parts if isinstance(p, CallArguments) and p.index == index)
        for index in range(len(names))
    ]
    assert parser.calls == len(names)
    return text, list(zip(names, arguments, strict=True))


def call(name: str = "add", arguments: str = '{"a": 1}') -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


CASES = [
    pytest.param("Hello there.\n", ("Hello there.\n", []), id="only text"),
    pytest.param(call(), ("", [("add", '{"a": 1}')]), id="a call"),
    pytest.param("Let me see.\n" + call(), ("Let me see.", [("add", '{"a": 1}')]), id="text, then a call"),
    pytest.param(
        call() + "\n" + call("weather", '{"city": "Oslo"}'),
        ("", [("add", '{"a": 1}'), ("weather", '{"city": "Oslo"}')]),
        id="two calls",
    ),
    pytest.param(call() + "\nDone.", ("\nDone.", [("add", '{"a": 1}')]), id="a call, then text"),
    pytest.param(
        call(arguments='{"a": {"b": ["}", "]", "\\"}"]}}'),
        ("", [("add", '{"a": {"b": ["}", "]", "\\"}"]}}')]),
        id="brackets in strings",
    ),
    pytest.param(
        '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>',
        ("", [("add", '{"a": 1}')]),
        id="the other order",
    ),
    pytest.param('<tool_call>{"name": "add"}</tool_call>', ("", [("add", "{}")]), id="no arguments"),
    pytest.param(
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>',
        ("", [("add", '{"a": 1}')]),
        id="arguments as a text",
    ),
    pytest.param(call("fly"), (call("fly"), []), id="a tool nobody offered"),
    pytest.param("<tool_call> is a tag", ("<tool_call> is a tag", []), id="prose about the tag"),
    pytest.param("a <b> <tool", ("a <b> <tool", []), id="the start of a tag at the end"),
    pytest.param(
        '<tool_call>{"name": "add", oops}</tool_call>',
        ('<tool_call>{"name": "add", oops}</tool_call>', []),
        id="broken JSON",
    ),
    pytest.param("<tool_call>x" + call(), ("<tool_call>x", [("add", '{"a": 1}')]), id="prose, then a call"),
    pytest.param(call()[:-12], ("", [("add", '{"a": 1}')]), id="the closing tag is missing"),
    pytest.param(call()[:45], ("", [("add", '{"a"')]), id="cut off within the arguments"),
    pytest.param('<tool_call>{"name": "ad', ('<tool_call>{"name": "ad', []), id="cut off within the name"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_what_is_read(text: str, expected: Read) -> None:
    assert read([text]) == expected


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_what_is_read_character_by_character(text: str, expected: Read) -> None:
    assert read(list(text)) == expected


fragments = st.sampled_from(
    ["<tool_call>", "</tool_call>", call(), call("fly"), '{"name": "add", ', '"arguments": {', "}", "\n", " x ", "<"]
)


@given(st.lists(fragments, max_size=7), st.data())
def test_where_the_text_is_cut_does_not_matter(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert read(pieces) == read([text])


def test_arguments_stream_as_they_come() -> None:
    parser = CallParser(STYLE, [Tool("add", {})])
    parser.feed('<tool_call>\n{"name": "add", "arguments": ')

    assert parser.feed('{"a":') == [CallBegun(0, "add"), CallArguments(0, '{"a":')]
    assert parser.feed(" 1") == [CallArguments(0, " 1")]


def test_a_grammar_names_each_tool_and_quotes_it() -> None:
    tools = [Tool("add", {}), Tool('we"ird', {})]
    grammar = FORMATS["hermes"].grammar(
        tools, True, lambda schema, prefix: (f"{prefix}-root ::= {json.dumps('{}')}", f"{prefix}-root")
    )

    assert "root ::= call (" in grammar
    assert r"\"we\\\"ird\"" in grammar
