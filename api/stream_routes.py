"""`GET /v1/streams/ID`: a resumable stream, read again."""

from quart import Quart, Response

from api import sse
from api.current import current_request
from api.errors import InvalidRequestError
from api.exchange import Surroundings


def add_stream_routes(app: Quart, around: Surroundings) -> None:
    @app.get("/v1/streams/<stream_id>")
    async def stream(stream_id: str) -> Response:
        last = current_request().headers.get("last-event-id", "")
        if last and not (last.isascii() and last.isdigit() and len(last) <= 12):
            raise InvalidRequestError("'Last-Event-ID' must be the number of an event.", param="Last-Event-ID")
        reader = around.streams.read(stream_id, int(last) + 1 if last else 0)
        return Response(reader, headers=dict(sse.HEADERS) | {"x-shoal-stream": stream_id})
