"""The request that the running view answers, and replies in JSON."""

from typing import Any, cast

import orjson
from quart import Response
from quart.globals import request_ctx

from api.exchange import ApiRequest


def current_request() -> ApiRequest:
    # Quart's global `request` looks itself up anew at every attribute; this looks once.
    return cast("ApiRequest", request_ctx.request)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers=headers, content_type="application/json")
