"""A node that is told to stop: what runs there finishes or moves, and nothing new comes."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.e2e.test_answers_survive import STORY, Stream, echo, load_on
from tests.helpers.nodes import mesh_of, until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("grace", "finishes"), [("20", True), ("0.5", False)], ids=["finishes", "moves"])
async def test_answers_of_a_leaving_holder_end_well_and_new_requests_go_elsewhere(
    tmp_path: Path, grace: str, finishes: bool
) -> None:
    async with mesh_of(tmp_path, "abc", "--grace", grace) as (a, b, c):
        await load_on(a, "echo", b, c)
        stream = Stream()
        reading = asyncio.create_task(stream.read(a, echo()))
        await until(lambda: len(stream.events) > 20, "the answer to run")
        holders = {"b": b, "c": c}
        leaving = holders.pop(stream.node)
        assert leaving.process is not None
        leaving.process.send_signal(signal.SIGTERM)

        async def has_left() -> bool:
            return (await a.mesh())[leaving.name]["state"] == "left"

        await until(has_left, "the good-bye")
        late = Stream()
        await late.read(a, echo(chat_template_kwargs={}))
        await reading
        code = await asyncio.to_thread(leaving.process.wait, 30)
        log = a.log()

    assert stream.text() == STORY
    assert stream.reasons() == ["stop"]
    assert stream.events[-1]["usage"]["completion_tokens"] == 120
    assert (late.text(), late.node) == (STORY, next(iter(holders)))
    assert code == 0
    assert ("broke off" not in log) is finishes
