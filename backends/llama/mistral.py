"""Tool calls as Mistral's models write them, before and since their 2025 tokenizers.

[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}, "id": "9Ae3bDc2F"}]
[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]…
"""

from backends.llama.call_grammar import Frame
from backends.llama.call_parser import Head, Style, Whole, read_json_calls
from backends.llama.patterns import Gap, Pattern

OPEN, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"

_COLON = (Gap.SPACE, ":", Gap.SPACE)
_OBJECT: Pattern = (Gap.SPACE, "{", Gap.SPACE)
_NAMED: Pattern = ('"name"', *_COLON, Gap.QUOTED_NAME, Gap.SPACE, ",", Gap.SPACE, '"arguments"', *_COLON, "{")
_ID: Pattern = (Gap.SPACE, ",", Gap.SPACE, '"id"', *_COLON, Gap.STRING)


def _object(before: Pattern) -> Head:
    closed: tuple[Pattern, ...] = ((Gap.SPACE, "}"), (*_ID, Gap.SPACE, "}"))
    return Head(
        (*before, *_OBJECT, *_NAMED),
        ends=tuple((*close, Gap.SPACE, "]") for close in closed),
        more=tuple((*close, Gap.SPACE, ",") for close in closed),
    )


STYLE = Style(
    openings=(OPEN,),
    heads=(
        _object((Gap.SPACE, "[")),
        Head((Gap.SPACE, Gap.NAME, ARGUMENTS, Gap.SPACE, "{")),
        Head((Gap.SPACE, Gap.NAME, CALL_ID, Gap.WORD, ARGUMENTS, Gap.SPACE, "{")),
        Head((Gap.SPACE, Gap.NAME, Gap.SPACE, "{")),
    ),
    next_heads=(_object(()),),
    wholes=(Whole((Gap.SPACE, "[", *_OBJECT, '"'), read_json_calls), Whole((*_OBJECT, '"name"'), read_json_calls)),
)
ARRAY_FRAME = Frame(opening=f"{OPEN}[", before='{"name": QUOTED, "arguments": ', after="}", between=", ", closing="]")
ARGUMENTS_FRAME = Frame(before=f"{OPEN}NAME{ARGUMENTS}", between="")
