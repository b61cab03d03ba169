"""How a conversation becomes text."""

import json

from gallery.minnow.template import render

TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}


def call(arguments: object) -> dict[str, object]:
    function = {"name": "get_weather", "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}


def test_turns_are_marked_and_the_answer_is_opened() -> None:
    text = render(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        add_generation_prompt=True,
    )
    assert text == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_nothing_is_put_in_place_of_a_missing_system_prompt() -> None:
    assert render([{"role": "user", "content": "Hi"}]).startswith("<|im_start|>user\nHi")


def test_a_developer_message_is_a_system_message() -> None:
    assert render([{"role": "developer", "content": "x"}]) == "<|im_start|>system\nx<|im_end|>\n"


def test_content_may_come_in_parts() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    text = render([{"role": "user", "content": parts}])
    assert text == "<|im_start|>user\nHello<|im_end|>\n"


def test_tools_join_the_system_turn_as_the_client_wrote_them() -> None:
    text = render([{"role": "system", "content": "Be brief."}], [TOOL])
    assert text.count("<|im_start|>system") == 1
    assert text.startswith("<|im_start|>system\nBe brief.\n\nYou can call")
    assert f"<tools>\n{json.dumps(TOOL)}\n</tools>" in text


def test_tools_make_a_system_turn_where_there_is_none() -> None:
    text = render([{"role": "user", "content": "Hi"}], [TOOL])
    assert text.startswith("<|im_start|>system\nYou can call")
    assert text.endswith("<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n")


def test_keys_can_be_sorted_as_jinja_does_by_itself() -> None:
    assert '{"function": {"name"' in render([], [TOOL], sort_keys=True)


def test_arguments_render_the_same_as_text_and_as_an_object() -> None:
    as_text, as_object = render([call('{"city": "Rome"}')]), render([call({"city": "Rome"})])
    assert (
        as_text
        == as_object
        == (
            "<|im_start|>assistant\n"
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
            "<|im_end|>\n"
        )
    )


def test_results_of_one_round_share_a_turn() -> None:
    text = render([call("{}"), {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}])
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|im_end|>\n"
    )
