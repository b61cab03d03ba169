"""A request for a model that only the gallery has: offered, or installed on the way."""

from collections.abc import Mapping
from typing import Any

import pytest

from api import errors
from gallery.entry_file import Entry
from node.install_job import DONE, FAILED, QUEUED, RUNNING, InstallJob
from node.install_on_request import FAILURE_KEPT, InstallOnRequest

FISH = Entry(name="fish", description="A fish", capabilities=("chat",), hub="a/fish", aliases=("cod",))


class Desk:
    """A node with its installs."""

    def __init__(self, job: InstallJob | None = None) -> None:
        self.job = job
        self.begun = 0

    async def find(self, name: str) -> Entry | None:
        return FISH if name in ("fish", "cod") else None

    async def ask(self, what: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if what == "install":
            self.begun += 1
            self.job = InstallJob(id="1", source=body["source"], created_at=100.0, state=QUEUED)
            return self.job.as_json()
        return {"jobs": [self.job.as_json()] if self.job else []}

    async def answer(self, model: str = "fish", *, is_on: bool = True) -> errors.ApiError | None:
        return await InstallOnRequest(self.find, self.ask, lambda: 100.0, is_on=is_on).answer(model)


def job(state: str, **more: Any) -> InstallJob:
    return InstallJob(id="1", source="fish", created_at=1.0, state=state, **more)


async def test_off_the_command_is_told_and_nothing_is_begun() -> None:
    desk = Desk()

    answer = await desk.answer("cod", is_on=False)

    assert isinstance(answer, errors.ModelNotFoundError)
    assert "shoal models install fish" in str(answer)
    assert desk.begun == 0
    assert await desk.answer("whale") is None


async def test_on_the_first_request_begins_it_and_the_next_ones_wait() -> None:
    desk = Desk()
    for _ in range(3):
        answer = await desk.answer("cod")
        assert isinstance(answer, errors.UnavailableError)
        assert (answer.code, answer.retry_after, "jobs/1" in str(answer)) == ("model_installing", 10, True)
    assert desk.begun == 1


@pytest.mark.parametrize(
    ("found", "begun", "retry_after", "told"),
    [
        (job(RUNNING, size=4_000_000_000, fetched=1_000_000_000, speed=1e8), 0, 30, "25% of 4.0 GB"),
        (job(RUNNING, size=10**12, fetched=0, speed=1.0), 0, 300, "0% of"),
        (job(FAILED, ended_at=99.0, error="the disk is full"), 0, None, "the disk is full"),
        (job(FAILED, ended_at=99.0 - FAILURE_KEPT, error="old"), 1, 10, "is being installed"),
        (job(DONE, ended_at=99.0), 0, 1, "has just been installed"),
        (job(DONE, ended_at=1.0), 1, 10, "is being installed"),
    ],
)
async def test_what_became_of_the_install_is_what_is_told(
    found: InstallJob, begun: int, retry_after: int | None, told: str
) -> None:
    desk = Desk(found)

    answer = await desk.answer()

    assert answer is not None
    assert (desk.begun, answer.retry_after, told in str(answer)) == (begun, retry_after, True), str(answer)
