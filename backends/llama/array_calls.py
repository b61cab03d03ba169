"""Tool calls as a JSON array between a model's own marks.

<tool_calls>[{"name": "weather", "arguments": {"city": "Oslo"}, "id": "1"}]</tool_calls>                     Apriel
<TOOLCALL>[{"name": "weather", "arguments": {"city": "Oslo"}}]</TOOLCALL>                          Nemotron Nano 2
<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]                              Granite 3, Phi 4
<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "weather", "parameters": {…}}]<|END_ACTION|>    Cohere Command
Action: ```json [{"tool_name": "weather", "parameters": {"city": "Oslo"}}]```                          Command R+
<|tools_prefix|>[{"weather": {"city": "Oslo"}}]<|tools_suffix|>                                          Apertus
<|tool_call_start|>[weather(city='Oslo')]<|tool_call_end|>                                    LFM2: Python, or JSON
<tool_calls>                                                                     MiniMax-M1: objects, no array
{"name": "weather", "arguments": {"city": "Oslo"}}
</tool_calls>
"""

import json
from typing import Any

from backends.llama.call_grammar import Frame
from backends.llama.call_parser import Calls, Head, Style, Whole, read_json_calls
from backends.llama.gemma import read_python_calls
from backends.llama.patterns import Gap, Pattern

_COLON: Pattern = (Gap.SPACE, ":", Gap.SPACE)
_COMMA: Pattern = (Gap.SPACE, ",", Gap.SPACE)
_BEGIN: Pattern = (Gap.SPACE, "[")
_OBJECT: Pattern = (Gap.SPACE, "{", Gap.SPACE)
_NAMED: Pattern = ('"name"', *_COLON, Gap.QUOTED_NAME, *_COMMA, '"arguments"', *_COLON, "{")
_TOOL_NAMED: Pattern = ('"tool_name"', *_COLON, Gap.QUOTED_NAME, *_COMMA, '"parameters"', *_COLON, "{")
_CALL_ID: Pattern = ('"tool_call_id"', *_COLON, Gap.STRING, *_COMMA)
_AFTER: tuple[Pattern, ...] = ((Gap.SPACE, "}"), (*_COMMA, '"id"', *_COLON, Gap.STRING, Gap.SPACE, "}"))


def _array(opening: str, closing: str, *inner: Pattern, read: Any = read_json_calls) -> Style:
    """Objects that begin like one of `inner`, in an array."""
    end: Pattern = (Gap.SPACE, "]", *((Gap.SPACE, closing) if closing else ()))

    def heads(before: Pattern) -> tuple[Head, ...]:
        return tuple(
            Head(
                (*before, *_OBJECT, *pattern),
                ends=tuple((*after, *end) for after in _AFTER),
                more=tuple((*after, Gap.SPACE, ",") for after in _AFTER),
            )
            for pattern in inner
        )

    return Style(
        openings=(opening,),
        heads=heads(_BEGIN),
        next_heads=heads(()),
        wholes=(Whole((*_BEGIN, *_OBJECT, '"'), read, end=((Gap.SPACE, closing),) if closing else ()),),
    )


def read_tool_names(text: str) -> Calls | None:
    """Calls that say `tool_name` and `parameters`, in any order; None if they are none."""
    try:
        found = [(entry["tool_name"], entry["parameters"]) for entry in json.loads(text, strict=False)]
    except (ValueError, TypeError, KeyError):
        return None
    return [(str(name), json.dumps(arguments, ensure_ascii=False)) for name, arguments in found]


APRIEL = _array("<tool_calls>", "</tool_calls>", _NAMED)
APRIEL_FRAME = Frame(
    opening="<tool_calls>[",
    before='{"name": QUOTED, "arguments": ',
    after="}",
    between=", ",
    closing="]</tool_calls>",
)

NEMOTRON = _array("<TOOLCALL>", "</TOOLCALL>", _NAMED)
NEMOTRON_FRAME = Frame(
    opening="<TOOLCALL>[", before='{"name": QUOTED, "arguments": ', after="}", between=", ", closing="]</TOOLCALL>"
)

GRANITE = _array("<|tool_call|>", "", _NAMED)
GRANITE_FRAME = Frame(
    opening="<|tool_call|>[", before='{"name": QUOTED, "arguments": ', after="}", between=", ", closing="]"
)

ACTION, ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"
COMMAND = _array(ACTION, ACTION_END, (*_CALL_ID, *_TOOL_NAMED), _TOOL_NAMED, read=read_tool_names)
COMMAND_FRAME = Frame(
    opening=f"{ACTION}[\n",
    before='    {"tool_call_id": "NUMBER", "tool_name": QUOTED, "parameters": ',
    after="}",
    between=",\n",
    closing=f"\n]{ACTION_END}",
)

_FENCE = "```json"
COMMAND_R = _array("Action:", "```", _TOOL_NAMED, read=read_tool_names)
COMMAND_R = Style(
    openings=COMMAND_R.openings,
    heads=tuple(Head((Gap.SPACE, _FENCE, *head.pattern), ends=head.ends, more=head.more) for head in COMMAND_R.heads),
    next_heads=COMMAND_R.next_heads,
)
COMMAND_R_FRAME = Frame(
    opening=f"Action:{_FENCE}\n[\n",
    before='    {"tool_name": QUOTED, "parameters": ',
    after="}",
    between=",\n",
    closing="\n]```",
)

APERTUS = _array("<|tools_prefix|>", "<|tools_suffix|>", (Gap.QUOTED_NAME, *_COLON, "{"), read=lambda _: None)
APERTUS_FRAME = Frame(
    opening="<|tools_prefix|>[", before="{QUOTED: ", after="}", between=", ", closing="]<|tools_suffix|>"
)

LFM, LFM_END = "<|tool_call_start|>", "<|tool_call_end|>"
LFM2 = Style(
    openings=(LFM,),
    heads=_array(LFM, LFM_END, _NAMED).heads,
    next_heads=_array(LFM, LFM_END, _NAMED).next_heads,
    wholes=(Whole((Gap.SPACE, "[", Gap.SPACE, Gap.NAME, "("), read_python_calls, until=LFM_END),),
)
LFM2_FRAME = Frame(
    opening=f"{LFM}[", before='{"name": QUOTED, "arguments": ', after="}", between=", ", closing=f"]{LFM_END}"
)

MINIMAX_M1 = Style(
    openings=("<tool_calls>",),
    heads=(Head((*_OBJECT, *_NAMED), more=((Gap.SPACE, "}"),)),),
    closings=((Gap.SPACE, "</tool_calls>"),),
)
MINIMAX_M1_FRAME = Frame(
    opening="<tool_calls>\n", before='{"name": QUOTED, "arguments": ', after="}", closing="\n</tool_calls>"
)
