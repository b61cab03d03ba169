"""`/api/gallery`: models that can be installed, installs and how far they are, installed models."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import orjson
from quart import Quart, Response

from api import sse
from api.current import current_request, json_response
from api.error_reply import error_json
from api.errors import ApiError, InvalidRequestError, JobNotFoundError
from api.fields import missing, parse_object, read_fields
from api.gallery_request import CARD, INSTALL_FIELDS
from api.ports import Gallery


def add_gallery_routes(app: Quart, gallery: Gallery) -> None:
    async def ask(what: str, **body: Any) -> Mapping[str, Any]:
        return await gallery.ask(what, body, asked_node())

    @app.get("/api/gallery")
    async def search() -> Response:
        return json_response(await gallery.search(current_request().args.get("q", "")))

    @app.post("/api/gallery/install")
    async def install() -> Response:
        body = read_fields(INSTALL_FIELDS, parse_object(current_request().content))
        if not body.get("source"):
            raise missing("source", "Say what to install; GET /api/gallery lists names.")
        node = body.pop("node", None) or asked_node()
        if body.pop("everywhere", False):
            if node:
                raise InvalidRequestError("Say either node or everywhere.", param="everywhere")
            jobs = await gallery.install_everywhere(body)
            return json_response({"jobs": [with_urls(job, job["node"]) if "id" in job else job for job in jobs]}, 202)
        return job_response(await gallery.ask("install", body, node), node)

    @app.get("/api/gallery/jobs")
    async def jobs() -> Response:
        return json_response(await ask("jobs"))

    @app.get("/api/gallery/jobs/<job>")
    async def job(job: str) -> Response:
        return json_response(await ask("job", id=job))

    @app.get("/api/gallery/jobs/<job>/events")
    async def events(job: str) -> Response:
        changes = gallery.watch(job, asked_node())
        # The first change is awaited here, so that an unknown job is a 404 and no stream.
        first = await anext(changes, None)
        if first is None:
            raise JobNotFoundError(f"There is no install {job[:40]!r}.", param="job")
        return Response(_events(first, changes), headers=dict(sse.HEADERS))

    @app.delete("/api/gallery/jobs/<job>")
    async def cancel(job: str) -> Response:
        return json_response(await ask("cancel", id=job))

    @app.post("/api/gallery/jobs/<job>/retry")
    async def retry(job: str) -> Response:
        return json_response(await ask("retry", id=job), 202)

    @app.get("/api/gallery/models/<name>")
    async def show(name: str) -> Response:
        return json_response(await ask("show", name=name))

    @app.put("/api/gallery/models/<name>")
    async def edit(name: str) -> Response:
        card = read_fields((CARD,), parse_object(current_request().content)).get("card")
        if card is None:
            raise missing("card", "Send the model's YAML as a text.")
        return json_response(await ask("edit", name=name, card=card))

    @app.delete("/api/gallery/models/<name>")
    async def remove(name: str) -> Response:
        return json_response(await ask("remove", name=name))

    @app.post("/api/gallery/models/<name>/verify")
    async def verify(name: str) -> Response:
        return json_response(await ask("verify", name=name))

    @app.post("/api/gallery/gc")
    async def gc() -> Response:
        return json_response(await ask("gc"))


async def _events(first: Mapping[str, Any], changes: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(changes):  # type: ignore[type-var]
        yield sse.event(orjson.dumps(first))
        try:
            async for change in changes:
                yield sse.event(orjson.dumps(change))
        except ApiError as error:
            yield sse.event(error_json(error))


def job_response(job: Mapping[str, Any], node: str | None) -> Response:
    """A job that has begun, and where to look how far it is."""
    return json_response(with_urls(job, node), 202)


def with_urls(job: Mapping[str, Any], node: str | None) -> dict[str, Any]:
    """The job, and where it can be watched."""
    path = f"/api/gallery/jobs/{job['id']}"
    query = f"?node={quote(node, safe='')}" if node else ""
    return {**job, "url": path + query, "events": f"{path}/events{query}"}


def asked_node() -> str | None:
    """The node that the request means; None for this one."""
    return current_request().args.get("node") or None
