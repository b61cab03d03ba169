"""The mesh as one machine: fulfils `api.ports.Inference`.

A call is turned into bytes once, then offered to the best node, then to the next best, until the first
reply is there. Whether that node is this one or a peer changes only where the bytes go:

    candidates = routing.rank(...)            who, in which order, and why
    _open(target)  ─┬─ here:  LocalModels.call     loads the model first if need be
                    └─ there: Mesh.call            the peer's `node.serving` does the same over there

Rules:

1. Before the first reply every failure that is not the client's is tried elsewhere, at most
   `MAX_ATTEMPTS` nodes in all; the client sees one answer or one error.
2. What failed is evidence: a peer that broke is reported to the mesh at once.
3. Whatever ends a call, early or late, closes it where it runs.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from api import errors, ports
from gallery.catalog import close_matches
from mesh import routing
from mesh.errors import MeshError, PeerError, RemoteCallError
from mesh.forwarding import CallHeader
from mesh.mesh import Mesh
from mesh.types import Member, ModelState, NodeId, NodeState
from node import protocol
from node.backend_errors import BackendError
from node.failure import LOST, CallFailure, of_backend_error, to_api_error
from node.local_models import LocalModels
from node.replies import Replies

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""Nodes that one request is offered to. A request that breaks three of them is likely at fault itself."""

LOAD, UNLOAD = "node.Load", "node.Unload"
"""What nodes ask of each other beside the backend protocol; bodies are JSON."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call is sent."""

    node: NodeId
    name: str
    digest: str
    why: str


class _AttemptFailed(Exception):
    def __init__(self, failure: CallFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Dispatcher:
    """Answers every call, wherever in the mesh that happens."""

    def __init__(self, mesh: Mesh, local: LocalModels) -> None:
        self._mesh = mesh
        self._local = local
        self._sent: Counter[tuple[NodeId, str]] = Counter()
        """Calls of this node that are running, by node and model: known here before any gossip."""
        self.is_draining = False

    # Text and vectors

    async def generate(self, call: ports.GenerateCall) -> "DispatchedAnswer":
        def body(digest: str) -> bytes:
            return protocol.generate_request(call, digest)

        return await self._start(protocol.GENERATE, call.model, call.request_id, body)

    async def embed(self, call: ports.EmbedCall) -> ports.Embeddings:
        def body(digest: str) -> bytes:
            return protocol.embed_request(call, digest)

        answer = await self._start(protocol.EMBED, call.model, call.request_id, body)
        vectors, prompt_tokens = protocol.embed_vectors(await answer.raw())
        return ports.Embeddings(vectors, prompt_tokens, answer.route)

    async def _start(
        self, method: str, model: str, request_id: str, body: Callable[[str], bytes]
    ) -> "DispatchedAnswer":
        tried: set[NodeId] = set()
        failure: CallFailure | None = None
        while len(tried) < MAX_ATTEMPTS:
            target = self._choose(model, request_id, tried)
            if target is None and not tried and await self._find_here(model):
                target = self._choose(model, request_id, tried)
            if target is None:
                break
            if failure is not None:
                log.warning("request %s: %s; trying %s", request_id, failure.message, target.name)
            tried.add(target.node)
            try:
                return await self._attempt(target, method, model, request_id, body(target.digest))
            except _AttemptFailed as attempt:
                failure = attempt.failure
                if failure.is_final:
                    break
        if failure is None:
            raise self._not_found(model)
        raise to_api_error(failure, model)

    def _choose(self, model: str, request_id: str, tried: set[NodeId]) -> Target | None:
        if self.is_draining:
            raise errors.ShuttingDownError("this node is stopping; ask another one", retry_after=1)
        view = self._mesh.view()
        for candidate in routing.rank(view, model, request_id=request_id, in_flight=self._sent):
            if candidate.node not in tried:
                name = view.members[candidate.node].record.name
                why = f"retried: {candidate.why}" if tried else candidate.why
                return Target(candidate.node, name, candidate.digest, why)
        return None

    async def _find_here(self, model: str) -> bool:
        try:
            return await self._local.find(model)
        except BackendError as error:
            raise to_api_error(of_backend_error(error), model) from error

    async def _attempt(
        self, target: Target, method: str, model: str, request_id: str, body: bytes
    ) -> "DispatchedAnswer":
        """The call at `target`, with its first reply in hand.

        Raises:
            _AttemptFailed: it failed before that.
        """
        key = (target.node, model)
        self._sent[key] += 1
        replies: Replies | None = None
        try:
            replies = await self._open(target, method, model, request_id, body)
            first: list[bytes] = await anext(replies, [])
        except BaseException as error:
            self._forget(key)
            if replies is not None:
                await replies.aclose()
            if isinstance(error, (BackendError, MeshError)):
                raise _AttemptFailed(self._failure(target, error)) from error
            raise
        return DispatchedAnswer(self, target, model, first, replies)

    async def _open(self, target: Target, method: str, model: str, request_id: str, body: bytes) -> Replies:
        if target.node == self._mesh.self_id:
            return await self._local.call(model, target.digest, method, [body])
        header = CallHeader(method=method, model=model, digest=target.digest, request_id=request_id)
        return await self._mesh.call(target.node, header, [body])

    def _failure(self, target: Target, error: BackendError | MeshError) -> CallFailure:
        match error:
            case RemoteCallError():
                return CallFailure(error.status, error.code, str(error), error.param)
            case PeerError():
                self._mesh.report_failure(target.node)
                return CallFailure(LOST.status, LOST.code, f"node {target.name} is gone: {error.reason}")
            case BackendError():
                return of_backend_error(error)
            case _:
                return CallFailure("UNAVAILABLE", "", str(error))

    def _forget(self, key: tuple[NodeId, str]) -> None:
        self._sent[key] -= 1
        if self._sent[key] <= 0:
            del self._sent[key]

    def _not_found(self, model: str) -> errors.ApiError:
        if problem := self._local.problem_with(model):
            return errors.ModelFailedError(problem, param="model")
        known = [info.name for info in self.models()]
        near = close_matches(model, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
        return errors.ModelNotFoundError(f"no node in the mesh has model {model!r}; {hint}", param="model")

    # What there is

    def models(self) -> Sequence[ports.ModelInfo]:
        holders: dict[str, list[tuple[str, Any]]] = {}
        for member in self._present():
            for model in member.record.models:
                holders.setdefault(model.name, []).append((member.record.name, model))
        return [_model_info(name, found) for name, found in sorted(holders.items())]

    def mesh(self) -> Mapping[str, Any]:
        view = self._mesh.view()
        return {"self": view.self_id, "nodes": [_node_json(m) for m in view.members.values()]}

    def diagnostics(self) -> Mapping[str, Any]:
        now = time.time()
        return {
            "addresses": list(self._mesh.listen_addresses),
            "mesh_port": self._mesh.port,
            "mdns": asdict(self._mesh.mdns()),
            "refusals": [
                {"address": r.address, "reason": r.reason, "count": r.count, "seconds_ago": max(0.0, now - r.at)}
                for r in self._mesh.refusals()
            ],
            "counters": asdict(self._mesh.stats()),
        }

    def is_ready(self) -> bool:
        return not self.is_draining

    def _present(self) -> list[Member]:
        present = (NodeState.ALIVE, NodeState.SUSPECT)
        return [m for m in self._mesh.view().members.values() if m.state in present]

    # Loading and unloading by name

    async def load(self, model: str, node: str | None) -> Mapping[str, Any]:
        await self._find_here(model)
        member = self._node(node) if node is not None else self._place(model)
        await self._order(member, LOAD, model)
        return {"model": model, "nodes": [member.record.name], "state": "ready"}

    async def unload(self, model: str, node: str | None) -> Mapping[str, Any]:
        if node is not None:
            members = [self._node(node)]
        else:
            members = [m for m in self._present() if _holds(m, model)]
            if not members and all(m.record.model(model) is None for m in self._present()):
                raise self._not_found(model)
        await asyncio.gather(*(self._order(member, UNLOAD, model) for member in members))
        return {"model": model, "nodes": [m.record.name for m in members], "state": "on_disk"}

    def _place(self, model: str) -> Member:
        """The node that should load it: the one the next request for it would go to."""
        target = self._choose(model, model, set())
        if target is None:
            raise self._not_found(model)
        return self._mesh.view().members[target.node]

    def _node(self, node: str) -> Member:
        present = self._present()
        found = [m for m in present if m.record.id == node] or [m for m in present if m.record.name == node]
        if len(found) > 1:
            ids = ", ".join(m.record.id for m in found)
            raise errors.InvalidRequestError(f"several nodes are called {node!r}; use an id: {ids}", param="node")
        if not found:
            names = ", ".join(sorted(m.record.name for m in present))
            raise errors.NodeNotFoundError(f"no node {node!r} in the mesh; there are: {names}", param="node")
        return found[0]

    async def _order(self, member: Member, order: str, model: str) -> None:
        record = member.record
        if record.model(model) is None:
            if all(m.record.model(model) is None for m in self._present()):
                raise self._not_found(model)
            raise errors.ModelNotFoundError(f"node {record.name} does not have model {model!r}", param="model")
        target = Target(record.id, record.name, "", "")
        try:
            if record.id == self._mesh.self_id:
                await (self._local.load(model) if order == LOAD else self._local.unload(model))
                return
            header = CallHeader(method=order, model=model, digest="", request_id="")
            replies = await self._mesh.call(record.id, header, [orjson.dumps({})])
            try:
                async for _ in replies:
                    pass
            finally:
                await replies.aclose()
        except (BackendError, MeshError) as error:
            raise to_api_error(self._failure(target, error), model) from error


class DispatchedAnswer:
    """A running answer, with its first replies in hand. Fulfils `api.ports.Answer`."""

    def __init__(
        self, dispatcher: Dispatcher, target: Target, model: str, first: Sequence[bytes], replies: Replies
    ) -> None:
        self._dispatcher = dispatcher
        self._target = target
        self._model = model
        self._first = first
        self._replies = replies
        self._is_closed = False

    @property
    def route(self) -> ports.Route:
        return ports.Route(self._target.name, self._target.why)

    async def batches(self) -> AsyncIterator[Sequence[ports.Event]]:
        async for messages in self._messages():
            yield protocol.generate_events(messages)

    async def raw(self) -> list[bytes]:
        """Every reply message, unread."""
        return [message async for messages in self._messages() for message in messages]

    async def _messages(self) -> AsyncIterator[Sequence[bytes]]:
        try:
            yield self._first
            async for messages in self._replies:
                yield messages
        except (BackendError, MeshError) as error:
            failure = self._dispatcher._failure(self._target, error)
            raise to_api_error(failure, self._model) from error
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._dispatcher._forget((self._target.node, self._model))
        await self._replies.aclose()


def _holds(member: Member, model: str) -> bool:
    record = member.record.model(model)
    return record is not None and record.state is not ModelState.ON_DISK


def _model_info(name: str, found: Sequence[tuple[str, Any]]) -> ports.ModelInfo:
    records = [record for _, record in found]
    return ports.ModelInfo(
        name=name,
        created=min((r.created for r in records if r.created), default=0),
        capabilities=sorted({capability for r in records for capability in r.capabilities}),
        context_length=max(r.context_length for r in records),
        loaded_on=sorted(node for node, r in found if r.state is ModelState.READY),
        available_on=sorted(node for node, _ in found),
    )


def _node_json(member: Member) -> dict[str, Any]:
    record = member.record
    return {
        "id": record.id,
        "name": record.name,
        "state": member.state.value,
        "api_url": record.api_url,
        "version": record.software,
        "devices": [
            {"kind": d.kind, "name": d.name, "memory_total": d.memory_total, "memory_free": d.memory_free}
            for d in record.devices
        ],
        "models": [
            {
                "name": m.name,
                "digest": m.digest,
                "engine": m.engine,
                "state": m.state.value,
                "slots": m.slots,
                "busy": m.busy,
                "queued": m.queued,
                "context_length": m.context_length,
                "capabilities": list(m.capabilities),
            }
            for m in record.models
        ],
    }
