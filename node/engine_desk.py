"""What can be asked about the engines of one node: by its own API, and by peers.

engines    engine_install {name}    engine_remove {name}

An engine's packages are installed by a job like a model's (`node/installs.py`), whose source is `engine://NAME`.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gallery.engine_table import BUILT_IN
from gallery.engines import Engines
from gallery.source import EngineSource, parse_source
from node.backend_process import default_program, environment
from node.supervisor import Supervisor

PREFIX = "engine:"
"""Of a job's name, where other jobs have a model's."""

CHECK_TIMEOUT = 20.0

log = logging.getLogger(__name__)


class EngineDesk:
    """Lives in the node's event loop; disks are looked at in threads."""

    def __init__(self, engines: Engines, supervisor: Supervisor, *, grace: float) -> None:
        self._engines = engines
        self._supervisor = supervisor
        self._grace = grace

    async def statuses(self) -> dict[str, Any]:
        """Every engine and what is wrong with it."""
        await asyncio.to_thread(self._engines.look)
        found = await asyncio.to_thread(self._engines.statuses, thoroughly=True)
        return {"engines": [asdict(one) for one in found], "problems": list(self._engines.problems)}

    def names(self) -> frozenset[str]:
        """Every engine that a card may name."""
        return frozenset(self._engines.look())

    async def check_installable(self, name: str) -> None:
        """Raises InstallError for an engine that is not there, or that has nothing to install."""
        await asyncio.to_thread(self._engines.look)
        await asyncio.to_thread(self._engines.check_installable, name)

    async def order(self, source: str) -> dict[str, Any]:
        """What a worker is told beside the job, if that is about an engine.

        Raises:
            GalleryError: there is nothing to install.
        """
        parsed = parse_source(source)
        if not isinstance(parsed, EngineSource):
            return {}
        recipe = await asyncio.to_thread(self._engines.recipe, parsed.name)
        return {"environments": str(self._engines.environments), "engine": asdict(recipe)}

    async def installed(self, name: str) -> bool:
        """A job is done: whether it was about an engine, whose models can then be loaded."""
        if not name.startswith(PREFIX):
            return False
        await self._supervisor.engine_changed(name.removeprefix(PREFIX), grace=self._grace)
        return True

    async def remove(self, name: str) -> dict[str, Any]:
        """Removes an engine's environment, after the running answers of its models.

        Raises:
            InstallError: it has none.
        """
        await self._supervisor.engine_changed(name, grace=self._grace)
        freed = await asyncio.to_thread(self._engines.remove, name)
        return {"name": name, "freed": freed}

    async def advice(self, engine: str) -> str:
        """What is left to do before models of `engine` run here; "" if nothing."""
        return await asyncio.to_thread(self._engines.missing, engine) if engine else ""

    async def settings_problem(self, engine: str, settings: Mapping[str, Any]) -> str:
        """What an engine of ours would not take of these settings; "" if all is well, or only it could tell.

        Asked in a process of its own: what settings mean is the engines' business, and they are not imported here.
        """
        if engine not in BUILT_IN or not settings:
            return ""
        program = default_program(engine)
        asking = await asyncio.create_subprocess_exec(
            *(*program.command, "--check-settings", json.dumps(dict(settings))),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment(os.environ),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                _, said = await asking.communicate()
        except TimeoutError:
            said = b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                asking.kill()
        # Any other end says something of the check, and nothing of the settings.
        return said.decode(errors="replace").strip()[:500] if asking.returncode == 1 else ""

    async def tidy(self, busy: frozenset[str]) -> list[str]:
        """Removes environments whose install did not finish; `busy` are the names of jobs that go on."""
        going_on = frozenset(name.removeprefix(PREFIX) for name in busy)
        gone = await asyncio.to_thread(self._engines.tidy, going_on)
        for name in gone:
            log.info("the environment %s was never finished; it is removed", name)
        return gone


def job_source(name: str) -> str:
    """What a job's source is called that installs this engine."""
    return f"engine://{name}"
