"""A stream can be read again after its connection broke."""

import asyncio
from typing import Any

import pytest

from api.errors import NotFoundError, TooManyRequestsError
from api.resumable import EventLog, Streams
from tests.api.support import ASK, CHAT, client, eventually
from tests.helpers.fakes import FakeInference

RESUMABLE = {**ASK, "stream": True, "stream_options": {"resumable": True}}


class Words:
    """A body of numbered events, one for each that is allowed."""

    def __init__(self, count: int = 5) -> None:
        self.count = count
        self.allowed = asyncio.Semaphore(0)
        self.is_closed = False

    async def __aiter__(self) -> Any:
        for number in range(self.count):
            await self.allowed.acquire()
            yield b"data: %d\n\n" % number

    async def aclose(self) -> None:
        self.is_closed = True

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.allowed.release()


def numbers(data: bytes) -> list[int]:
    return [int(line.removeprefix(b"data: ")) for line in data.split(b"\n") if line.startswith(b"data: ")]


async def all_of(reading: Any) -> list[int]:
    return numbers(b"".join([piece async for piece in reading]))


async def test_who_comes_back_reads_on_where_it_broke_off() -> None:
    body, streams = Words(), Streams()
    reading = streams.open("s", body)
    body.go_on(2)
    first = await anext(reading)
    while len(numbers(first)) < 2:
        first += await anext(reading)
    await reading.aclose()
    body.go_on(3)

    assert numbers(first) == [0, 1]
    assert first.startswith(b"id: 0\ndata: 0\n\n")
    assert await all_of(streams.read("s", 2)) == [2, 3, 4]
    assert await all_of(streams.read("s", 0)) == [0, 1, 2, 3, 4]
    assert body.is_closed
    await streams.aclose()


async def test_an_answer_that_nobody_reads_is_cancelled() -> None:
    body, streams = Words(), Streams(linger=0.01)
    reading = streams.open("s", body)
    body.go_on(1)
    await anext(reading)
    await reading.aclose()

    await eventually(lambda: body.is_closed)
    with pytest.raises(NotFoundError):
        streams.read("s", 0)


async def test_what_is_not_there_cannot_be_read() -> None:
    streams = Streams()
    streams.open("s", Words())

    for stream_id, start in (("other", 0), ("s", 7)):
        with pytest.raises(NotFoundError):
            streams.read(stream_id, start)
    await streams.aclose()


async def test_streams_are_bounded() -> None:
    streams = Streams(most=2)
    running, done = Words(), Words(0)
    keep = streams.open("running", running)
    assert await all_of(streams.open("done", done)) == []
    another = streams.open("another", Words())

    with pytest.raises(NotFoundError):
        streams.read("done", 0)
    with pytest.raises(TooManyRequestsError):
        streams.open("one too many", Words())
    await streams.aclose()
    del keep, another


async def test_only_the_latest_bytes_of_a_stream_are_kept() -> None:
    log = EventLog(most_bytes=100)
    for number in range(20):
        log.add(b"data: %d\n\n" % number)
    log.finish()

    assert 0 < log.first < 19
    assert await all_of(log.read(log.first)) == list(range(log.first, 20))
    assert await all_of(log.read(0)) == []


async def test_over_http_ids_count_up_and_the_rest_is_read_again() -> None:
    asks = client(FakeInference())
    answer = await asks.post(CHAT, json=RESUMABLE)
    whole = (await answer.get_data()).decode()
    stream_id = answer.headers["x-shoal-stream"]

    again = await asks.get(f"/v1/streams/{stream_id}", headers={"last-event-id": "1"})

    events = whole.split("\n\n")
    assert [event.split("\n")[0] for event in events[:-1]] == [f"id: {n}" for n in range(len(events) - 1)]
    assert (await again.get_data()).decode() == "\n\n".join(events[2:])
    assert again.headers["content-type"].startswith("text/event-stream")
    assert f'"{stream_id}"' in whole
    assert events[-2].endswith("[DONE]")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/streams/nobody", {}, 404),
        ("/v1/streams/nobody", {"last-event-id": "minus one"}, 400),
    ],
)
async def test_wrong_ids_are_refused(path: str, headers: dict[str, str], status: int) -> None:
    assert (await client().get(path, headers=headers)).status_code == status


async def test_an_ordinary_stream_has_no_ids_and_is_not_kept() -> None:
    answer = await client().post(CHAT, json={**ASK, "stream": True})

    assert b"id: " not in (await answer.get_data()).replace(b'"id": ', b"")
    assert "x-shoal-stream" not in answer.headers
