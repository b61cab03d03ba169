"""Pictures and sounds in chat requests: what is taken, and what is left in the messages."""

import base64
import json
from typing import Any

import pytest

from api import media as media_module
from api.chat_request import read_chat
from api.errors import InvalidRequestError
from api.generation_request import GenerationRequest
from api.media import settled
from tests.helpers.media import picture, sound

RED = picture()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def see(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def hear(data: bytes, form: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": form}}


def chat(*parts: dict[str, Any]) -> GenerationRequest:
    return read_chat({"model": "m", "messages": [{"role": "user", "content": list(parts)}]}, request_id="r")


def content_of(wanted: GenerationRequest) -> list[dict[str, Any]]:
    [call] = wanted.calls
    [message] = json.loads(call.messages_json or "")
    return list(message["content"])


def test_files_leave_the_messages_and_are_named_by_what_is_in_them() -> None:
    wanted = chat({"type": "text", "text": "see"}, see(data_url(RED)), hear(sound()), see(data_url(RED)))
    _, first, heard, second = content_of(wanted)

    name = first["image_url"]["url"]
    assert wanted.calls[0].media == {name: RED, heard["input_audio"]["data"]: sound()}
    assert first == second
    assert name.startswith("sha256:")
    assert wanted.calls[0].needs == {"chat", "vision", "audio_in"}


def test_a_url_waits_to_be_fetched_once_and_is_then_named_by_what_came() -> None:
    wanted = chat(see("https://x.example/a.png"), see("https://x.example/a.png"), see(data_url(RED)))

    [(placeholder, remote)] = wanted.media.remote.items()
    call = settled(wanted.calls[0], wanted.media, {placeholder: picture(1, 2, 3)})

    assert remote.url == "https://x.example/a.png"
    parts = json.loads(call.messages_json or "")[0]["content"]
    assert {part["image_url"]["url"] for part in parts} == set(call.media)
    assert set(call.media.values()) == {RED, picture(1, 2, 3)}


def test_what_is_fetched_must_be_a_picture() -> None:
    wanted = chat(see("https://x.example/a.png"))

    with pytest.raises(InvalidRequestError, match="is no PNG"):
        settled(wanted.calls[0], wanted.media, {"remote:0": b"<html>"})


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        pytest.param(see("file:///etc/passwd"), "use an http, https or data URL", id="a file"),
        pytest.param(see("sha256:00"), "use an http, https or data URL", id="our own names"),
        pytest.param(see("remote:0"), "use an http, https or data URL", id="our own marks"),
        pytest.param(see("data:image/png,abc"), "data:image/png;base64", id="not base64"),
        pytest.param(see("data:image/png;base64,***"), "not valid base64", id="broken base64"),
        pytest.param(see("data:image/png;base64,"), "is empty", id="nothing"),
        pytest.param(see(data_url(b"<svg></svg>", "image/svg+xml")), "is no PNG", id="no picture"),
        pytest.param(see("https://x.example/" + "a" * 5000), "longer than 4096", id="a long URL"),
        pytest.param(see(5), "a URL", id="a number"),
        pytest.param({"type": "image_url"}, "a URL", id="none"),
        pytest.param(hear(sound(), "ogg"), "wav or mp3", id="another format"),
        pytest.param({"type": "input_audio", "input_audio": "x"}, "an object", id="a text for a sound"),
        pytest.param({"type": "input_audio", "input_audio": {"format": "wav"}}, "a file in base64", id="no sound"),
    ],
)
def test_others_are_refused_with_the_reason_and_the_place(part: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        chat(part)

    assert str(caught.value.param).startswith("messages[0].content[0]")


@pytest.mark.parametrize("url", ["https://example.org/large.png", data_url(RED)], ids=["address", "data"])
def test_the_same_picture_again_and_again_is_counted_as_often(url: str) -> None:
    chat(*[see(url)] * 32)
    with pytest.raises(InvalidRequestError, match="32 pictures and sounds"):
        chat(*[see(url)] * 33)


def test_files_are_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequestError, match="32 pictures and sounds"):
        chat(*[see(data_url(picture(n))) for n in range(33)])
    monkeypatch.setattr(media_module, "MAX_FILE_BYTES", len(RED) - 1)
    with pytest.raises(InvalidRequestError, match=f"may have {len(RED) - 1} bytes"):
        chat(see(data_url(RED)))
    monkeypatch.setattr(media_module, "MAX_FILE_BYTES", len(RED) * 10)
    monkeypatch.setattr(media_module, "MAX_ALL_BYTES", len(RED))
    with pytest.raises(InvalidRequestError, match="together"):
        chat(see(data_url(RED)), see(data_url(picture(9, 9, 9))))
