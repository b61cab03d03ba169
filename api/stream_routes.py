"""`GET /v1/streams/ID`: a resumable stream, read again, through whichever node."""

from quart import Quart, Response

from api import sse
from api.current import current_request
from api.error_reply import error_json
from api.errors import ApiError, InvalidRequestError
from api.exchange import Surroundings
from api.ports import Body, Inference


def add_stream_routes(app: Quart, inference: Inference, around: Surroundings) -> None:
    @app.get("/v1/streams/<stream_id>")
    async def stream(stream_id: str) -> Response:
        last = current_request().headers.get("last-event-id", "")
        if last and not (last.isascii() and last.isdigit() and len(last) <= 12):
            raise InvalidRequestError("'Last-Event-ID' must be the number of an event.", param="Last-Event-ID")
        start = int(last) + 1 if last else 0
        if stream_id in around.streams:
            body: Body = around.streams.read(stream_id, start)
        else:
            body = Relayed(await inference.read_stream(stream_id, start))
        return Response(body, headers=dict(sse.HEADERS) | {"x-shoal-stream": stream_id})


class Relayed:
    """Another node's events. That they are lost is told as the last one: the status is long said."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._pieces = aiter(body)
        self._is_lost = False

    def __aiter__(self) -> "Relayed":
        return self

    async def __anext__(self) -> bytes:
        if self._is_lost:
            raise StopAsyncIteration
        try:
            return await anext(self._pieces)
        except ApiError as error:
            self._is_lost = True
            return sse.event(error_json(error))

    async def aclose(self) -> None:
        await self._body.aclose()
