"""Has copies made of models that stay saturated, and keeps those that this node was asked to make.

What and where is decided by `mesh.placement`, at one of the holders; it sends the order, and the node that gets it
loads the model if its memory is still free. Such a copy is unloaded when nobody used it for a while, unless all the
others are gone by then.
"""

import asyncio
import logging

from mesh.errors import MeshError, RemoteCallError
from mesh.forwarding import CallHeader
from mesh.mesh import Mesh
from mesh.placement import Copy, SaturationWatch, same_copies
from mesh.types import ModelState
from node.local_models import LocalModels

REPLICATE = "node.Replicate"

LOOK_EVERY = 1.0
"""Seconds."""

log = logging.getLogger(__name__)


class Replicator:
    """Looks again and again."""

    def __init__(self, mesh: Mesh, local: LocalModels, *, after: float) -> None:
        """`after`: seconds of saturation; 0: no copies are asked for."""
        self._mesh = mesh
        self._local = local
        self._watch = SaturationWatch(after)
        self._orders: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Runs until cancelled; so are orders on their way, but not the loads that they began."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                for copy in self._watch.look(self._mesh.view(), loop.time()):
                    task = loop.create_task(self._order(copy))
                    self._orders.add(task)
                    task.add_done_callback(self._orders.discard)
                self._keep_last_copies()
                await asyncio.sleep(LOOK_EVERY)
        finally:
            for task in self._orders:
                task.cancel()

    async def _order(self, copy: Copy) -> None:
        name = self._mesh.view().members[copy.node].record.name
        log.info("model %s is saturated everywhere; node %s is asked to load it too", copy.model, name)
        header = CallHeader(method=REPLICATE, model=copy.model, digest=copy.digest, request_id="")
        try:
            replies = await self._mesh.call(copy.node, header, [b""])
            try:
                async for _ in replies:
                    pass
            finally:
                await replies.aclose()
        except RemoteCallError as error:
            log.info("node %s does not load %s: %s", name, copy.model, error)
        except MeshError as error:
            log.warning("node %s could not be asked to load %s: %s", name, copy.model, error)

    def _keep_last_copies(self) -> None:
        view = self._mesh.view()
        for model in view.me.record.models:
            if model.name in self._local.replicas and model.state is ModelState.READY:
                ready = [o for o in same_copies(view, model) if o.model.state is ModelState.READY]
                if len(ready) == 1:
                    self._local.replicas.discard(model.name)
