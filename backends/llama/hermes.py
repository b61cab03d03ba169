"""Tool calls as Hermes and Qwen models write them.

Let me look.
<tool_call>
{"name": "weather", "arguments": {"city": "Oslo"}}
</tool_call>
"""

from backends.llama.call_grammar import Frame
from backends.llama.call_parser import Head, Style, Whole, read_json_calls
from backends.llama.patterns import Gap

OPEN, CLOSE = "<tool_call>", "</tool_call>"

_KEY = (Gap.SPACE, "{", Gap.SPACE)
_COLON = (Gap.SPACE, ":", Gap.SPACE)
_NAMED = (*_KEY, '"name"', *_COLON, Gap.QUOTED_NAME)
_END = (Gap.SPACE, CLOSE)

STYLE = Style(
    openings=(OPEN,),
    heads=(
        Head((*_NAMED, Gap.SPACE, ",", Gap.SPACE, '"arguments"', *_COLON, "{"), ends=((Gap.SPACE, "}", *_END),)),
        Head((*_NAMED, Gap.SPACE, ",", Gap.SPACE, '"parameters"', *_COLON, "{"), ends=((Gap.SPACE, "}", *_END),)),
    ),
    wholes=tuple(
        Whole(pattern, read_json_calls, end=(_END,))
        for pattern in (_NAMED, (*_KEY, '"arguments"'), (*_KEY, '"id"'), (*_KEY, '"type"'), (*_KEY, '"function"'))
    ),
)
FRAME = Frame(before=f'{OPEN}\n{{"name": QUOTED, "arguments": ', after=f"}}\n{CLOSE}")
