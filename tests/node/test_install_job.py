"""An install as it is told: state, speed, time left."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import CommandError
from node.install_job import DONE, FAILED, KEPT_JOBS, RUNNING, InstallJob, Speed, after_event, failed, forgotten
from node.installs import Installs
from tests.helpers.nodes import until

JOB = InstallJob(id="1", source="hf://a/b", created_at=1.0, state=RUNNING)


def test_a_job_follows_its_worker_from_resolving_to_the_end() -> None:
    job = after_event(JOB, {"event": "resolved", "name": "b", "resolved": "hf://a/b@c", "why": "fits"}, 0, 2)
    job = after_event(job, {"event": "progress", "fetched": 25, "size": 100}, 5.0, 3)
    assert (job.name, job.fetched, job.seconds_left) == ("b", 25, 15)

    done = after_event(job, {"event": "done", "name": "b", "lock": {}}, 0, 4)
    assert (done.state, done.fetched, done.is_over, done.seconds_left) == (DONE, 100, True, None)

    over = after_event(job, {"event": "failed", "message": "no", "code": "not_found"}, 0, 4)
    assert (over.state, over.error, over.code, over.ended_at) == (FAILED, "no", "not_found", 4)


def test_what_a_later_version_says_changes_nothing() -> None:
    assert after_event(JOB, {"event": "sang"}, 0, 2) == JOB


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=20))
def test_speed_is_never_negative_and_never_above_the_fastest_moment(fetched: list[int]) -> None:
    speed = Speed(0.0)
    values = [speed.update(count, float(now)) for now, count in enumerate(fetched, start=1)]
    fastest = max(max(0, b - a) for a, b in pairwise(fetched))

    assert all(0 <= value <= fastest + 1e-6 for value in values)


def test_only_the_oldest_that_are_over_are_forgotten() -> None:
    over = [InstallJob(id=f"o{n}", source="x", created_at=0, state=DONE, ended_at=n) for n in range(KEPT_JOBS + 2)]
    jobs = {job.id: job for job in [*over, JOB]}

    assert forgotten(jobs) == ["o1", "o0"]


@pytest.mark.parametrize("raw", [{}, {"id": "1"}, {"id": 1, "source": "x", "created_at": 0}, {"id": "1", "state": "?"}])
def test_a_file_that_is_no_job_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        InstallJob.from_json(raw)


@pytest.fixture
async def installs(tmp_path: Path) -> AsyncIterator[Installs]:
    async def extra(_: InstallJob) -> dict[str, Any]:
        return {"models": str(tmp_path / "models"), "cache": str(tmp_path / "cache")}

    async def installed(_: str) -> str:
        return ""

    (tmp_path / "models").mkdir()
    async with Installs(tmp_path / "jobs", tmp_path / "models", extra, installed) as installs:
        yield installs


async def test_a_watcher_that_is_slow_does_not_miss_the_end(installs: Installs, tmp_path: Path) -> None:
    job = installs.begin("file:///nowhere/x.gguf")
    states = []
    async for change in installs.watch(job.id):
        states.append(change.state)
        # It ends while we are busy.
        await until(lambda: installs.find(job.id).is_over, "its end")

    assert states[-1] == FAILED
    assert json.loads((tmp_path / "jobs" / f"{job.id}.json").read_text())["state"] == FAILED


async def test_the_same_source_twice_is_one_install(installs: Installs) -> None:
    assert installs.begin("file:///nowhere/x.gguf").id == installs.begin("file:///nowhere/x.gguf").id


async def test_an_unknown_install_is_told_so(installs: Installs) -> None:
    with pytest.raises(CommandError, match="no install"):
        await installs.cancel("none")


async def test_what_may_be_a_key_in_an_address_is_not_logged(
    installs: Installs, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        job = installs.begin("http://127.0.0.1/x.bin?key=secret")
        await until(lambda: installs.find(job.id).is_over, "its end")

    assert "install of http://127.0.0.1/x.bin?..." in caplog.text
    assert "secret" not in caplog.text


def test_what_may_be_a_key_in_an_address_is_not_shown() -> None:
    job = replace(JOB, source="https://host/x.gguf?key=secret", resolved="https://host/x.gguf?key=secret")

    shown = failed(job, "https://host/x.gguf?key=secret: answered 500", "server_error", 1.0).as_json()

    assert "secret" not in json.dumps(shown)
    assert shown["source"] == "https://host/x.gguf?..."
