"""What a node says about itself: health, metrics, the mesh, its API."""

from quart import Quart, Response

from api.current import json_response
from api.exchange import Surroundings
from api.openapi import openapi_document
from api.ports import Inference

HINT = """<!doctype html>
<meta charset="utf-8"><title>Shoal</title>
<h1>Shoal</h1>
<p>This node speaks the OpenAI API. Point a client at <code>/v1</code> on this address.</p>
<ul>
<li><a href="/v1/models">/v1/models</a>: the models of the mesh</li>
<li><a href="/api/mesh">/api/mesh</a>: its nodes</li>
<li><a href="/openapi.json">/openapi.json</a>: everything this node answers</li>
<li><a href="/metrics">/metrics</a>: figures for Prometheus</li>
</ul>
"""


def add_node_routes(app: Quart, inference: Inference, around: Surroundings) -> None:
    @app.get("/")
    async def hint() -> Response:
        return Response(HINT, content_type="text/html; charset=utf-8")

    @app.get("/healthz")
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        ready = inference.is_ready() and not around.is_stopping
        return json_response({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(around.metrics.page(), content_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/api/mesh")
    async def mesh() -> Response:
        return json_response(inference.mesh())

    @app.get("/api/diagnostics")
    async def diagnostics() -> Response:
        return json_response(inference.diagnostics())

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return json_response(openapi_document())
