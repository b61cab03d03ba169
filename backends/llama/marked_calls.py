"""Tool calls whose name stands between marks, with JSON after it.

<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{"city": "Oslo"}
<|tool_call_end|><|tool_calls_section_end|>                                                               Kimi K2
<|tool_calls|><|tool_call:begin|>ID<|tool_call:name|>weather<|tool_call:args|>{"city": "Oslo"}
<|tool_call:end|><|calls|>                                                                             Solar Open
<function=weather>{"city": "Oslo"}</function>                                                    Functionary 3.1
<|function_call|>{"name": "weather", "arguments": {"city": "Oslo"}}                                      GigaChat
"""

from backends.llama.call_grammar import Frame
from backends.llama.call_parser import Head, Style, Whole, read_json_calls
from backends.llama.patterns import Gap

KIMI_CALLS, KIMI_CALLS_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
KIMI_CALL, KIMI_ARGUMENTS, KIMI_CALL_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
KIMI_MARKERS = (KIMI_CALLS, KIMI_CALLS_END, KIMI_CALL, KIMI_ARGUMENTS, KIMI_CALL_END)
KIMI_K2 = Style(
    openings=(KIMI_CALLS,),
    heads=tuple(
        Head(
            (Gap.SPACE, KIMI_CALL, Gap.SPACE, *prefix, Gap.NAME, ":", Gap.WORD, KIMI_ARGUMENTS, Gap.SPACE, "{"),
            more=((Gap.SPACE, KIMI_CALL_END),),
        )
        for prefix in (("functions.",), ())
    ),
    closings=((Gap.SPACE, KIMI_CALLS_END),),
)
KIMI_K2_FRAME = Frame(
    opening=KIMI_CALLS,
    before=f"{KIMI_CALL}functions.NAME:NUMBER{KIMI_ARGUMENTS}",
    after=KIMI_CALL_END,
    between="",
    closing=KIMI_CALLS_END,
)

SOLAR_MARKERS = (
    *("<|tool_calls|>", "<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>"),
    *("<|tool_call:end|>", "<|calls|>"),
)
SOLAR_CALLS, SOLAR_CALL, SOLAR_NAME, SOLAR_ARGUMENTS, SOLAR_CALL_END, SOLAR_CALLS_END = SOLAR_MARKERS
SOLAR = Style(
    openings=(SOLAR_CALLS,),
    heads=(
        Head(
            (Gap.SPACE, SOLAR_CALL, Gap.WORD, SOLAR_NAME, Gap.NAME, SOLAR_ARGUMENTS, Gap.SPACE, "{"),
            more=((Gap.SPACE, SOLAR_CALL_END),),
        ),
    ),
    closings=((Gap.SPACE, SOLAR_CALLS_END),),
)
SOLAR_FRAME = Frame(
    opening=SOLAR_CALLS,
    before=f"{SOLAR_CALL}call_NUMBER{SOLAR_NAME}NAME{SOLAR_ARGUMENTS}",
    after=SOLAR_CALL_END,
    between="",
    closing=SOLAR_CALLS_END,
)

FUNCTIONARY = Style(
    openings=("<function=",),
    heads=(Head((Gap.NAME, ">", Gap.SPACE, "{"), ends=((Gap.SPACE, "</function>"),)),),
)
FUNCTIONARY_FRAME = Frame(before="<function=NAME>", after="</function>", between="")

GIGACHAT_OPENINGS = ("<|function_call|>", "function call<|role_sep|>")
_COLON = (Gap.SPACE, ":", Gap.SPACE)
GIGACHAT = Style(
    openings=GIGACHAT_OPENINGS,
    heads=(
        Head(
            (
                *(Gap.SPACE, "{", Gap.SPACE, '"name"', *_COLON, Gap.QUOTED_NAME),
                *(Gap.SPACE, ",", Gap.SPACE, '"arguments"', *_COLON, "{"),
            ),
            ends=((Gap.SPACE, "}"),),
        ),
    ),
    wholes=(Whole((Gap.SPACE, "{", Gap.SPACE, '"'), read_json_calls),),
)
GIGACHAT_FRAME = Frame(before='<|function_call|>{"name": QUOTED, "arguments": ', after="}")
