"""`POST /v1/chat/completions`, from outside."""

import asyncio
import logging
from typing import Any

import orjson
import pytest

from api.errors import (
    ApiError,
    BackendFailedError,
    ContextLengthError,
    ModelFailedError,
    ModelLoadingError,
    TooManyRequestsError,
)
from tests.api.support import ASK, CHAT, client, events, eventually
from tests.helpers.fakes import FakeInference


async def test_a_whole_answer() -> None:
    response = await client().post(CHAT, json=ASK)

    assert response.status_code == 200
    body = await response.get_json()
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "hello wide world", "refusal": None}
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == "parrot"


async def test_a_streamed_answer_says_the_same() -> None:
    response = await client().post(CHAT, json={**ASK, "stream": True})

    assert response.content_type == "text/event-stream; charset=utf-8"
    *chunks, done = events(await response.get_data())
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == "hello wide world"
    assert len({c["id"] for c in chunks}) == 1
    assert done == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_says_who_gave_it_and_why(stream: bool) -> None:
    response = await client().post(CHAT, json={**ASK, "stream": stream}, headers={"x-request-id": "my-id"})

    assert response.headers["x-shoal-node"] == "fake-node"
    assert response.headers["x-shoal-route"] == "local: fake"
    assert response.headers["x-request-id"] == "my-id"


async def test_a_request_id_that_is_not_sane_is_replaced() -> None:
    fake = FakeInference()
    response = await client(fake).post(CHAT, json=ASK, headers={"x-request-id": "a b\tc"})

    assert response.headers["x-request-id"].startswith("req-")
    assert fake.calls[0].request_id == response.headers["x-request-id"]


async def test_several_choices() -> None:
    body = await (await client().post(CHAT, json={**ASK, "n": 3})).get_json()

    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]


async def test_a_tool_that_must_be_called_is_called() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    ask = {**ASK, "tools": [tool], "tool_choice": "required"}

    [choice] = (await (await client().post(CHAT, json=ask)).get_json())["choices"]

    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (ContextLengthError("too long", param="messages"), 400, "context_length_exceeded", None),
        (TooManyRequestsError("full", retry_after=2.2), 429, "queue_full", "3"),
        (ModelLoadingError("loading", retry_after=0), 503, "model_loading", "1"),
        (ModelFailedError("corrupt file"), 503, "model_load_failed", None),
        (BackendFailedError("all broke"), 502, "backend_failed", None),
        (ApiError("odd \udc80 bytes"), 500, "internal_error", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_reply_is_a_status(
    error: ApiError, status: int, code: str, retry_after: str | None, stream: bool
) -> None:
    response = await client(FakeInference(failure=error)).post(CHAT, json={**ASK, "stream": stream})

    assert response.status_code == status
    assert (await response.get_json())["error"]["code"] == code
    assert response.headers.get("retry-after") == retry_after
    assert response.headers["x-shoal-node"]


async def test_a_failure_in_mid_stream_is_an_event_and_no_done() -> None:
    fake = FakeInference(failure=BackendFailedError("gone"), fail_after=2)

    response = await client(fake).post(CHAT, json={**ASK, "stream": True})

    assert response.status_code == 200
    *before, last = events(await response.get_data())
    assert len(before) == 3
    assert last == {"error": {"message": "gone", "type": "server_error", "param": None, "code": "backend_failed"}}
    assert not fake.open_answers


async def test_a_failure_in_mid_answer_is_a_status_when_nothing_was_sent() -> None:
    fake = FakeInference(failure=BackendFailedError("gone"), fail_after=2)

    response = await client(fake).post(CHAT, json=ASK)

    assert response.status_code == 502
    assert not fake.open_answers


@pytest.mark.parametrize("fail_after", [None, 1])
@pytest.mark.parametrize("stream", [False, True])
async def test_our_own_mistake_is_logged_and_not_shown(
    stream: bool, fail_after: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeInference(failure=KeyError("secret"), fail_after=fail_after)

    response = await client(fake).post(CHAT, json={**ASK, "stream": stream}, headers={"x-request-id": "id-7"})

    data = await response.get_data()
    assert response.status_code == (200 if stream and fail_after else 500)
    assert b"internal_error" in data
    assert b"secret" not in data
    assert b"Traceback" not in data
    [record] = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "id-7" in record.getMessage()
    assert record.exc_info is not None


async def test_an_unknown_model_is_a_404_in_the_openai_shape() -> None:
    response = await client().post(CHAT, json={**ASK, "model": "parot"})

    assert response.status_code == 404
    assert (await response.get_json())["error"] == {
        "message": "The model 'parot' does not exist. Did you mean 'parrot'?",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


@pytest.mark.parametrize(
    "fake", [FakeInference(first_delay=60), FakeInference(delay=60)], ids=["before the first reply", "after it"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_call(fake: FakeInference, stream: bool) -> None:
    fake.calls.clear()
    fake.cancelled = 0
    async with client(fake).request(CHAT, method="POST") as connection:
        await connection.send(orjson.dumps({**ASK, "stream": stream}))
        await connection.send_complete()
        await eventually(lambda: bool(fake.calls))
        await asyncio.sleep(0.02)
        await connection.disconnect()

        assert await eventually(lambda: fake.cancelled == 1) < 0.2
    assert not fake.open_answers


async def test_every_read_answer_is_closed_and_none_counts_as_cancelled() -> None:
    fake = FakeInference()
    for stream in (False, True):
        await (await client(fake).post(CHAT, json={**ASK, "stream": stream})).get_data()

    assert not fake.open_answers
    assert fake.cancelled == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", "invalid_json", id="nothing"),
        pytest.param(b"{", "invalid_json", id="half an object"),
        pytest.param(b"[]", "invalid_type", id="an array"),
        pytest.param(b"{}", "missing_required_parameter", id="an empty object"),
        pytest.param(b'{"model":"parrot","messages":[]}', "empty_array", id="no messages"),
        pytest.param(b"[" * 500_000, "invalid_json", id="brackets without end"),
    ],
)
async def test_a_bad_body_is_a_400(body: bytes, code: str) -> None:
    response = await client().post(CHAT, data=body)

    error: dict[str, Any] = (await response.get_json())["error"]
    assert response.status_code == 400
    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}
