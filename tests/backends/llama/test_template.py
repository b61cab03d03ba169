"""Chat templates, and what users cannot do with them."""

import json
from typing import Any

import pytest

from backends.errors import InvalidValueError, UnsupportedError
from backends.llama.template import CHATML, ChatTemplate, MediaPart, Span, read_messages, tokenize_spans

CONTROL = ["<|im_start|>", "<|im_end|>", "<s>"]


def template(source: str = CHATML) -> ChatTemplate:
    return ChatTemplate(source, begin="<s>", end="</s>", control_texts=CONTROL)


def rendered(source: str, messages: list[dict[str, Any]] | None = None, **more: Any) -> str:
    return "".join(span.text for span in template(source).render(messages or [{"role": "user"}], **more))


def test_a_conversation_becomes_text() -> None:
    [span] = template().render([{"role": "user", "content": "hi"}])

    assert span == Span("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", plain=False)


def test_a_control_token_written_by_a_user_is_plain_text() -> None:
    spans = template().render([{"role": "user", "content": "a<|im_end|>b"}])

    assert spans[1] == Span("<|im_end|>", plain=True)
    assert "".join(span.text for span in spans).startswith("<|im_start|>user\na<|im_end|>b<|im_end|>")


def test_it_is_plain_text_in_tools_and_variables_too() -> None:
    spans = template("{{ tools | tojson }}{{ mood }}").render([], [{"d": "<s>"}], {"mood": "<|im_end|>"})

    assert [span for span in spans if span.plain] == [Span("<s>", True), Span("<|im_end|>", True)]


def test_a_control_token_cannot_be_put_together_from_parts() -> None:
    parts = [{"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}]
    messages = read_messages(json.dumps([{"role": "user", "content": parts}]))

    assert Span("<|im_end|>", plain=True) in template().render(messages)


def test_a_template_still_sees_what_is_around_the_control_token() -> None:
    source = "{{ messages[0].content.split('|')[0] | length }}"

    assert rendered(source, [{"role": "user", "content": "abc|<s>"}]) == "3"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("{{ bos_token }}{{ eos_token }}", "<s></s>", id="begin and end"),
        pytest.param("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}', id="JSON is not escaped for HTML"),
        pytest.param("{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1", id="break"),
        pytest.param("{% if true %}\n  x\n{% endif %}\n", "  x\n", id="blocks leave no lines"),
        pytest.param("{{ strftime_now('%Y') | length }}", "4", id="the date"),
    ],
)
def test_what_templates_may_use(source: str, expected: str) -> None:
    assert rendered(source) == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("{{ raise_exception('roles must alternate') }}", "roles must alternate", id="it says so"),
        pytest.param("{{ ''.__class__.__mro__ }}", "unsafe", id="escaping the sandbox"),
        pytest.param("{{ messages[3].content.x }}", "no element 3", id="an error in it"),
    ],
)
def test_a_template_that_fails_fails_the_request(source: str, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        rendered(source)


def test_a_template_cannot_change_the_conversation() -> None:
    with pytest.raises(InvalidValueError, match="unsafe"):
        rendered("{{ messages.clear() }}")


def test_a_template_that_does_not_parse_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="not valid"):
        template("{% if %}")


CALLED = [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]}]


def test_a_template_that_joins_arguments_as_text_gets_them_as_text() -> None:
    for source in ("{{ call + function.arguments }}", "{{ call }}{{ function.arguments | tojson }}"):
        shown = rendered(
            "{% set call = 'add: ' %}{% set function = messages[0].tool_calls[0].function %}" + source, CALLED
        )

        assert shown == 'add: {"a": 1}'


def test_no_content_is_an_empty_text_unless_the_template_asks_for_none() -> None:
    assert rendered("[{{ messages[0].content }}]", CALLED) == "[]"
    assert rendered("{% if messages[0]['content'] is none %}none{% endif %}", CALLED) == "none"


def test_tools_are_known_by_the_template() -> None:
    assert template("{% if tools %}x{% endif %}").has_tools
    assert not template().has_tools


def test_arguments_of_earlier_calls_become_objects() -> None:
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}}
    [message] = read_messages(json.dumps([{"role": "assistant", "content": None, "tool_calls": [call]}]))

    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["arguments"] == {"a": 1}


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        pytest.param("{", InvalidValueError, id="not JSON"),
        pytest.param("[]", InvalidValueError, id="none"),
        pytest.param("[1]", InvalidValueError, id="not objects"),
        pytest.param('[{"content": "x"}]', InvalidValueError, id="no role"),
        pytest.param('[{"role": "user", "content": 5}]', InvalidValueError, id="a number"),
        pytest.param('[{"role": "user", "content": [{"type": "image_url"}]}]', InvalidValueError, id="no picture"),
        pytest.param('[{"role": "user", "content": [{"type": "video_url"}]}]', UnsupportedError, id="a film"),
    ],
)
def test_messages_that_are_none(messages: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_messages(messages)


SEE = {"type": "image_url", "image_url": {"url": "one"}}
HEAR = {"type": "input_audio", "input_audio": {"data": "two", "format": "wav"}}
ONLY_PARTS = (
    "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}[{{ part.text }}]{% endif %}"
)
ONLY_PARTS += "{% endfor %}{% endfor %}"


def test_pictures_and_sounds_stand_where_they_were_put() -> None:
    content = [{"type": "text", "text": "see "}, SEE, HEAR, {"type": "text", "text": "<|im_end|>"}]
    spans = template().render(read_messages(json.dumps([{"role": "user", "content": content}])))

    assert [span.medium or span.text for span in spans] == [
        "<|im_start|>user\nsee ",
        MediaPart("image", "one"),
        MediaPart("audio", "two"),
        "<|im_end|>",
        "<|im_end|>\n<|im_start|>assistant\n",
    ]


def test_a_template_that_knows_parts_only_gets_parts() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "user", "content": [SEE, {"type": "text", "text": "so"}]}]
    spans = template(ONLY_PARTS).render(read_messages(json.dumps(messages)))

    assert [span.medium or span.text for span in spans] == ["[hi][", MediaPart("image", "one"), "][so]"]


def test_a_template_that_leaves_out_a_picture_is_no_way_to_show_one() -> None:
    messages = read_messages(json.dumps([{"role": "user", "content": [SEE]}, {"role": "user", "content": "b"}]))

    with pytest.raises(InvalidValueError, match="leaves out a picture"):
        template("{{ messages[-1].content }}").render(messages)


def test_plain_spans_are_tokenized_as_text_and_the_begin_token_comes_once() -> None:
    def tokenize(text: str, special: bool) -> list[int]:
        return [1 if special and text.startswith("<s>") else 9]

    assert tokenize_spans([Span("x", plain=False), Span("<s>", plain=True)], tokenize, 1) == [1, 9, 9]
    assert tokenize_spans([Span("<s>", plain=False)], tokenize, 1) == [1]


def test_what_a_template_marks_for_training_is_shown_as_it_is() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.role }}!{% endgeneration %}{% endfor %}"

    assert rendered(source) == "user!"
