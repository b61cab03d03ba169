"""A request names a model that no node has, but that a gallery knows: it is offered, or installed on the way.

Off by default (`--install-on-request`): then the client is told which command installs it. On, this node begins the
install, and the client is told 503 with `Retry-After` and the job, until the model is there. A stream is told the same
and not kept waiting: a download takes longer than clients and proxies wait, and a status is what they can retry.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from api import errors
from gallery.entry_file import Entry

FIRST_RETRY = 10
LONGEST_RETRY = 300
"""Seconds a client is told to wait, where the job does not know better."""
FAILURE_KEPT = 60.0
"""Seconds a failed install is what is answered, before the next request begins it again."""

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class InstallOnRequest:
    """Lives in the node's event loop."""

    def __init__(
        self, find: Callable[[str], Awaitable[Entry | None]], ask: Ask, now: Callable[[], float], *, is_on: bool
    ) -> None:
        """Args:
        find: the gallery's entry of a name or alias.
        ask: puts a question about installs to this node.
        now: Unix seconds.
        """
        self._find = find
        self._ask = ask
        self._now = now
        self._is_on = is_on

    async def answer(self, model: str) -> errors.ApiError | None:
        """What a request is told that names `model`, which no node has; None if no gallery has it either."""
        entry = await self._find(model)
        if entry is None:
            return None
        if not self._is_on:
            return errors.ModelNotFoundError(
                f"no node in the mesh has model {model!r} yet; the gallery has it: shoal models install {entry.name}",
                param="model",
            )
        jobs = (await self._ask("jobs", {}))["jobs"]
        latest = next((job for job in jobs if job["source"] == entry.name), None)
        told = None if latest is None else after(latest, self._now())
        if told is None:
            told = after(await self._ask("install", {"source": entry.name}), self._now())
        return told or errors.UnavailableError(_words(model, {}), code=CODE, retry_after=FIRST_RETRY)


CODE = "model_installing"


def after(job: Mapping[str, Any], now: float) -> errors.ApiError | None:
    """What a request is told whose model that job installs; None if the job should be begun (again)."""
    if job["state"] in ("queued", "running"):
        left = job["seconds_left"]
        wait = FIRST_RETRY if left is None else min(max(math.ceil(left), 1), LONGEST_RETRY)
        return errors.UnavailableError(_words(job["source"], job), code=CODE, retry_after=wait)
    if job["state"] == "failed" and 0 <= now - job["ended_at"] < FAILURE_KEPT:
        return errors.ModelFailedError(f"model {job['source']!r} could not be installed: {job['error']}", param="model")
    if job["state"] == "done" and 0 <= now - job["ended_at"] < FIRST_RETRY:
        # It is there; the others hear of it in a moment.
        return errors.UnavailableError(f"model {job['source']!r} has just been installed", code=CODE, retry_after=1)
    return None


def _words(model: str, job: Mapping[str, Any]) -> str:
    size, fetched = job.get("size") or 0, job.get("fetched") or 0
    far = f", {fetched / size:.0%} of {size / 1e9:.1f} GB are here" if size else ""
    where = f" (GET /api/gallery/jobs/{job['id']})" if job.get("id") else ""
    return f"model {model!r} is being installed{far}{where}; ask again"
