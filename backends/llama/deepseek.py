# ruff: noqa: RUF001, RUF002 - the marks are written with these letters
"""Tool calls as DeepSeek's models write them: V3 and R1 in a fence, V3.1 and later without.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather
```json
{"city": "Oslo"}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>
"""

from backends.llama.call_grammar import Frame
from backends.llama.call_parser import Head, Style
from backends.llama.patterns import Gap

CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEPARATOR, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
FENCE = "```json"

STYLE = Style(
    openings=(CALLS,),
    heads=(
        Head(
            (Gap.SPACE, CALL, "function", SEPARATOR, Gap.NAME, Gap.SPACE, FENCE, Gap.SPACE, "{"),
            more=((Gap.SPACE, "```", Gap.SPACE, CALL_END),),
        ),
        Head((Gap.SPACE, CALL, Gap.NAME, SEPARATOR, Gap.SPACE, "{"), more=((Gap.SPACE, CALL_END),)),
    ),
    closings=((Gap.SPACE, CALLS_END),),
)
FENCED_FRAME = Frame(
    opening=CALLS,
    before=f"{CALL}function{SEPARATOR}NAME\n{FENCE}\n",
    after=f"\n```{CALL_END}",
    closing=CALLS_END,
)
FRAME = Frame(opening=CALLS, before=f"{CALL}NAME{SEPARATOR}", after=CALL_END, between="", closing=CALLS_END)
