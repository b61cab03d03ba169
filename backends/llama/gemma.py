"""Tool calls as Gemma models write them when their prompt asks for Python or JSON in a fence.

```tool_code
print(weather(city="Oslo"))
```
"""

import ast
import json
from dataclasses import replace

from backends.llama.call_grammar import Frame
from backends.llama.call_parser import Calls, Whole
from backends.llama.json_calls import FENCES, GENERIC
from backends.llama.patterns import Gap

FENCE = "```tool_code"


def read_python_calls(text: str) -> Calls | None:
    """The calls in Python source, literal arguments by name only; None if there is anything else."""
    try:
        tree = ast.parse(text.strip())
        return [_call(node) for statement in tree.body for node in _nodes(statement)]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _nodes(statement: ast.stmt) -> list[ast.expr]:
    if not isinstance(statement, ast.Expr | ast.Assign):
        raise ValueError
    value = statement.value
    if isinstance(value, ast.List):
        return value.elts
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
        return value.args
    return [value]


def _call(node: ast.expr) -> tuple[str, str]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError
    arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    if None in arguments:
        raise ValueError
    return node.func.id, json.dumps(arguments, ensure_ascii=False)


_PYTHON = (
    (Gap.SPACE, Gap.NAME, "("),
    (Gap.SPACE, "print", Gap.SPACE, "(", Gap.SPACE, Gap.NAME, "("),
    (Gap.SPACE, "[", Gap.SPACE, Gap.NAME, "("),
)
STYLE = replace(
    GENERIC,
    openings=(FENCE, *FENCES),
    wholes=(*(Whole(pattern, read_python_calls, until="```") for pattern in _PYTHON), *GENERIC.wholes),
)
FRAME = Frame(before='```json\n{"name": QUOTED, "parameters": ', after="}\n```")
