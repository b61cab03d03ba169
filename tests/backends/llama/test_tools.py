"""What a request says about tools."""

import json
from typing import Any

import pytest

from backends.errors import InvalidValueError
from backends.llama.tools import NO_TOOLS, read_offer

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("add", "weather")]
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        pytest.param(None, [], id="absent"),
        pytest.param("auto", [], id="auto"),
        pytest.param("required", ["add", "weather"], id="required"),
        pytest.param(NAMED, ["weather"], id="named"),
    ],
)
def test_what_a_choice_forces(choice: Any, forced: list[str]) -> None:
    offer = read_offer(json.dumps(TOOLS), json.dumps(choice) if choice else "")

    assert offer.names == {"add", "weather"}
    assert [tool.name for tool in offer.forced] == forced


def test_none_hides_the_tools() -> None:
    assert read_offer(json.dumps(TOOLS), '"none"') == NO_TOOLS


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        pytest.param("{", "", "tools", id="not JSON"),
        pytest.param("{}", '"required"', "tool_choice", id="required without tools"),
        pytest.param('{"a": 1}', "", "tools", id="not an array"),
        pytest.param('[{"function": {}}]', "", "tools", id="no name"),
        pytest.param('[{"function": {"name": "a", "parameters": []}}]', "", "tools", id="parameters"),
        pytest.param(json.dumps(TOOLS), '"sometimes"', "tool_choice", id="unknown word"),
        pytest.param(json.dumps(TOOLS), '{"function": {"name": "fly"}}', "tool_choice", id="unknown tool"),
    ],
)
def test_what_makes_no_sense_is_refused(tools: str, choice: str, param: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        read_offer(tools, choice)

    assert caught.value.param == param
