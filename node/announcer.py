"""Keeps the mesh told of what this node is and holds: on every change of a model, and of memory when it matters."""

import asyncio
import logging
from collections.abc import Callable
from importlib.metadata import version

from mesh.mesh import Mesh
from mesh.types import Device
from node.devices import detect
from node.local_models import SOON_READ, LocalModels
from node.sharing import Sharing

log = logging.getLogger(__name__)

SOFTWARE = version("shoal")
"""Read once: it is looked up in a file, and announcements follow every change of load."""

LOOK_EVERY = 3.0
"""Seconds between looks at the models folder and at free memory."""

MEMORY_STEP = 256 * 1024 * 1024
"""Free memory is told in steps of this many bytes: it wobbles all the time, and each change is news to everyone."""


class Announcer:
    """Watches, and says `Mesh.announce`."""

    def __init__(
        self, mesh: Mesh, local: LocalModels, sharing: Sharing, *, name: str, api_url: Callable[[], str]
    ) -> None:
        """`api_url`: how others reach the API here; it may change with this machine's address."""
        self._mesh = mesh
        self._local = local
        self._sharing = sharing
        self._name = name
        self._api_url = api_url
        self._devices: tuple[Device, ...] = ()
        local.on_change(self._announce)
        sharing.on_change = self._announce

    async def ready(self) -> None:
        """The first announcement."""
        self._devices = await asyncio.to_thread(_devices)
        await self._local.refresh(largest=SOON_READ)
        await self._sharing.refresh()
        self._announce()

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            try:
                await self._local.refresh()
                await self._sharing.refresh()
                self._devices = await asyncio.to_thread(_devices)
            except OSError as error:
                log.warning("could not look at models and devices: %s", error)
            self._announce()
            await asyncio.sleep(LOOK_EVERY)

    def _announce(self) -> None:
        self._mesh.announce(
            name=self._name,
            api_url=self._api_url(),
            software=SOFTWARE,
            devices=self._devices,
            models=self._local.records(),
            files=self._sharing.ids,
        )


def _devices() -> tuple[Device, ...]:
    return tuple(Device(d.kind, d.name, d.memory_total, d.memory_free // MEMORY_STEP * MEMORY_STEP) for d in detect())
