"""`/api/engines`: what runs models, and installing what it needs. An install is a job like a model's."""

from collections.abc import Mapping
from typing import Any

from quart import Quart, Response

from api.current import json_response
from api.gallery_routes import asked_node, job_response
from api.ports import Gallery


def add_engine_routes(app: Quart, gallery: Gallery) -> None:
    async def ask(what: str, **body: Any) -> Mapping[str, Any]:
        return await gallery.ask(what, body, asked_node())

    @app.get("/api/engines")
    async def engines() -> Response:
        return json_response(await ask("engines"))

    @app.post("/api/engines/<name>/install")
    async def install_engine(name: str) -> Response:
        return job_response(await ask("engine_install", name=name), asked_node())

    @app.delete("/api/engines/<name>")
    async def remove_engine(name: str) -> Response:
        return json_response(await ask("engine_remove", name=name))
