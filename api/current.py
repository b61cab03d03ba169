"""The request that the running view answers, and replies in JSON."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

import orjson
from quart import Response
from quart.globals import request_ctx

from api.exchange import ApiRequest


def current_request() -> ApiRequest:
    # Quart's global `request` looks itself up anew at every attribute; this looks once.
    return cast("ApiRequest", request_ctx.request)


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    data = orjson.dumps(body, default=_plain)
    return Response(data, status, headers=headers, content_type="application/json")


def _plain(value: object) -> object:
    """Mappings and sequences of other kinds than JSON's own."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (Sequence, Set)):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
