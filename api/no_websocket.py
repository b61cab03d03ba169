"""The answer to a WebSocket handshake: there are none here."""

from typing import cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope
from quart import Quart
from quart.asgi import ASGIWebsocketConnection

from api.error_reply import error_json
from api.errors import NotFoundError
from api.write_watch import Send


class NoWebsocket(ASGIWebsocketConnection):
    """Refuses the handshake before anything is looked at, so that no gate is needed."""

    def __init__(self, app: Quart, scope: WebsocketScope) -> None:
        super().__init__(app, scope)

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        body = error_json(NotFoundError("This node has no WebSocket endpoints; use HTTP."))
        say = cast("Send", send)
        await say(
            {
                "type": "websocket.http.response.start",
                "status": 404,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                    (b"connection", b"close"),
                ],
            }
        )
        await say({"type": "websocket.http.response.body", "body": body, "more_body": False})
