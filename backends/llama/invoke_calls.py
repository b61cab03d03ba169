# ruff: noqa: RUF001, RUF002 - the marks are written with these letters
"""Tool calls in tags with attributes, several between one pair of marks.

<｜DSML｜function_calls>                                                         DeepSeek V3.2; V4: tool_calls
<｜DSML｜invoke name="weather">
<｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>
</｜DSML｜invoke>
</｜DSML｜function_calls>

<minimax:tool_call>                                                                                 MiniMax-M2
<invoke name="weather">
<parameter name="city">Oslo</parameter>
</invoke>
</minimax:tool_call>

]<]minimax[>[<tool_call>                                                                            MiniMax-M3
]<]minimax[>[<invoke name="weather">]<]minimax[>[<city>Oslo]<]minimax[>[</city>]<]minimax[>[</invoke>
]<]minimax[>[</tool_call>

<function name="weather"><param name="city">Oslo</param></function>                                  MiniCPM 5
<seed:tool_call>                                                                                      Seed-OSS
<function=weather>
<parameter=city>Oslo</parameter>
</function>
</seed:tool_call>
"""

import json
import re
from typing import Any

from backends.llama.call_grammar import Frame
from backends.llama.call_parser import Head, Style
from backends.llama.patterns import Gap
from backends.llama.tagged_calls import TaggedBody, Tags

# DeepSeek V3.2 and V4
_DSML = "｜DSML｜"
DSML_CALLS, DSML_TOOL_CALLS = f"<{_DSML}function_calls>", f"<{_DSML}tool_calls>"
DSML_TAGS = Tags(
    keys=tuple(
        ((Gap.SPACE, f'<{_DSML}parameter name="', Gap.NAME, f'" string="{word}">'), is_text)
        for word, is_text in (("true", True), ("false", False))
    ),
    value_end=f"</{_DSML}parameter>",
    over=(Gap.SPACE, f"</{_DSML}invoke"),
    written_before=f'<{_DSML}parameter name="KEY" string="TEXT">',
    written_after=f"</{_DSML}parameter>\n",
    trimmed=False,
)
DSML = Style(
    openings=(DSML_CALLS, DSML_TOOL_CALLS),
    heads=(Head((Gap.SPACE, f'<{_DSML}invoke name="', Gap.NAME, '">'), more=((">",),), keep=""),),
    closings=tuple((Gap.SPACE, opening.replace("<", "</")) for opening in (DSML_CALLS, DSML_TOOL_CALLS)),
    body=lambda tool: TaggedBody(tool, DSML_TAGS),
)


def _dsml_frame(opening: str) -> Frame:
    return Frame(
        opening=f"{opening}\n",
        before=f'<{_DSML}invoke name="NAME">\n',
        after=f"</{_DSML}invoke>",
        closing=f"\n{opening.replace('<', '</')}",
    )


DSML_FRAME, DSML_V4_FRAME = _dsml_frame(DSML_CALLS), _dsml_frame(DSML_TOOL_CALLS)

# MiniMax-M2
M2_CALLS, M2_CALLS_END = "<minimax:tool_call>", "</minimax:tool_call>"
M2_TAGS = Tags(
    keys=(((Gap.SPACE, '<parameter name="', Gap.NAME, '">'), None),),
    value_end="</parameter>",
    over=(Gap.SPACE, "</invoke"),
    written_before='<parameter name="KEY">',
    written_after="</parameter>\n",
    trimmed=False,
)
M2 = Style(
    openings=(M2_CALLS,),
    heads=(Head((Gap.SPACE, '<invoke name="', Gap.NAME, '">'), more=((">",),), keep=""),),
    closings=((Gap.SPACE, M2_CALLS_END),),
    body=lambda tool: TaggedBody(tool, M2_TAGS),
)
M2_FRAME = Frame(
    opening=f"{M2_CALLS}\n", before='<invoke name="NAME">\n', after="</invoke>", closing=f"\n{M2_CALLS_END}"
)

# MiniMax-M3
M3_MARK = "]<]minimax[>["


def read_nested(text: str) -> Any:
    """A value of MiniMax-M3's: tags for objects, `item` tags for arrays, JSON for the rest.

    Raises:
        ValueError: neither.
    """
    if M3_MARK not in text:
        return json.loads(text)
    value, rest = _nested(text)
    if rest.strip():
        raise ValueError(rest)
    return value


def _nested(text: str) -> tuple[Any, str]:
    """The value that `text` begins with, and what follows it."""
    opening = re.compile(rf"\s*{re.escape(M3_MARK)}<([^/<>]+)>")
    if not (begun := opening.match(text)):
        word, mark, rest = text.partition(M3_MARK)
        try:
            return json.loads(word), mark + rest
        except ValueError:
            return word, mark + rest
    pairs: list[tuple[str, Any]] = []
    while begun:
        value, rest = _nested(text[begun.end() :])
        closing = f"{M3_MARK}</{begun[1]}>"
        if not rest.lstrip().startswith(closing):
            raise ValueError(rest)
        pairs.append((begun[1], value))
        text = rest.lstrip().removeprefix(closing)
        begun = opening.match(text)
    is_array = all(name == "item" for name, _ in pairs)
    return ([value for _, value in pairs] if is_array else dict(pairs)), text


M3_TAGS = Tags(
    keys=(((Gap.SPACE, f"{M3_MARK}<", Gap.NAME, ">"), None),),
    value_end=f"{M3_MARK}</KEY>",
    over=(Gap.SPACE, f"{M3_MARK}</invoke"),
    written_before=f"{M3_MARK}<KEY>",
    written_after=f"{M3_MARK}</KEY>",
    trimmed=False,
    read=read_nested,
)
M3_CALLS, M3_CALLS_END = f"{M3_MARK}<tool_call>", f"{M3_MARK}</tool_call>"
M3 = Style(
    openings=(M3_CALLS,),
    heads=(Head((Gap.SPACE, f'{M3_MARK}<invoke name="', Gap.NAME, '">'), more=((">",),), keep=""),),
    closings=((Gap.SPACE, M3_CALLS_END),),
    body=lambda tool: TaggedBody(tool, M3_TAGS),
)
M3_FRAME = Frame(
    opening=f"{M3_CALLS}\n",
    before=f'{M3_MARK}<invoke name="NAME">',
    after=f"{M3_MARK}</invoke>",
    closing=f"\n{M3_CALLS_END}",
)

# MiniCPM 5
CPM_TAGS = Tags(
    keys=(((Gap.SPACE, '<param name="', Gap.NAME, '">'), None),),
    value_end="</param>",
    over=(Gap.SPACE, "</function>"),
    written_before='<param name="KEY">',
    written_after="</param>",
    trimmed=False,
)
CPM = Style(
    openings=('<function name="',),
    heads=(Head((Gap.NAME, '">'), keep=""),),
    body=lambda tool: TaggedBody(tool, CPM_TAGS),
)
CPM_FRAME = Frame(before='<function name="NAME">', after="</function>")

# Seed-OSS
SEED, SEED_END = "<seed:tool_call>", "</seed:tool_call>"
SEED_TAGS = Tags(
    keys=(((Gap.SPACE, "<parameter=", Gap.NAME, ">"), None),),
    value_end="</parameter>",
    over=(Gap.SPACE, "</function>"),
    written_before="<parameter=KEY>",
    written_after="</parameter>\n",
    trimmed=False,
)
SEED_OSS = Style(
    openings=(SEED,),
    heads=(Head((Gap.SPACE, "<function=", Gap.NAME, ">"), ends=((Gap.SPACE, SEED_END),), keep=""),),
    body=lambda tool: TaggedBody(tool, SEED_TAGS),
)
SEED_FRAME = Frame(before=f"{SEED}\n<function=NAME>\n", after=f"</function>\n{SEED_END}")
