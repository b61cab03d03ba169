"""Tool calls as plain JSON objects: what Llama 3 writes, and what most models write when told to.

    {"name": "weather", "parameters": {"city": "Oslo"}}                 the answer begins with it
    <|python_tag|>{"type": "function", "name": "weather", "parameters": {"city": "Oslo"}}
    ```json                                                             or in a fence
    {"name": "weather", "arguments": {"city": "Oslo"}}
    ```

An object that names no offered tool is text: models may be asked for JSON and have tools as well.
"""

from backends.llama.call_grammar import Frame
from backends.llama.call_parser import Head, Style, Whole, read_json_calls
from backends.llama.patterns import Gap, Pattern

PYTHON_TAG = "<|python_tag|>"
FENCES = ("```json", "```tool_call", "```tool_calls")

_KEY = (Gap.SPACE, "{", Gap.SPACE)
_COLON = (Gap.SPACE, ":", Gap.SPACE)
_NEXT = (Gap.SPACE, ",", Gap.SPACE)
_BEGINS: tuple[Pattern, ...] = (
    (*_KEY, '"name"', *_COLON, Gap.QUOTED_NAME),
    (*_KEY, '"type"', *_COLON, '"function"', *_NEXT, '"name"', *_COLON, Gap.QUOTED_NAME),
)
HEADS = tuple(
    Head((*begin, *_NEXT, key, *_COLON, "{"), ends=((Gap.SPACE, "}"),))
    for begin in _BEGINS
    for key in ('"parameters"', '"arguments"')
)
_KEYS: tuple[Pattern, ...] = (
    ('"name"', *_COLON, Gap.QUOTED_NAME),
    ('"arguments"', *_COLON, "{"),
    ('"parameters"', *_COLON, "{"),
    ('"function"', *_COLON, "{"),
    ('"type"', *_COLON, '"function"', *_NEXT, '"function"', *_COLON, "{"),
)
WHOLES = (
    *(Whole((*_KEY, *key), read_json_calls) for key in _KEYS),
    Whole((Gap.SPACE, "[", *_KEY, *_KEYS[0]), read_json_calls),
)

LLAMA3 = Style(openings=(PYTHON_TAG,), heads=HEADS, wholes=WHOLES, bare=True, separators=";,")
LLAMA3_FRAME = Frame(before='{"name": QUOTED, "parameters": ', after="}", between="; ")

FENCE_END: tuple[Pattern, ...] = ((Gap.SPACE, "```"),)
"""What closes a fence is read as a closing after the call, where there was one."""

GENERIC = Style(
    openings=FENCES,
    heads=HEADS,
    wholes=WHOLES,
    closings=FENCE_END,
    bare=True,
    separators=";,",
)
GENERIC_FRAME = Frame(before='{"name": QUOTED, "arguments": ', after="}")
