"""What is no HTTP request gets an answer in OpenAI's error shape too, where Hypercorn would send an empty one."""

from typing import Any

import h11

from api.error_reply import error_json
from api.errors import InvalidRequestError

_TOO_LARGE = 431


def explain_malformed(protocol: Any) -> None:
    """Makes one connection's HTTP/1 protocol say what is wrong with a request that it cannot read."""
    # The wrapper speaks HTTP/2 as well, once a client asks for it; only HTTP/1 has this method.
    http1: Any = getattr(protocol, "protocol", None)
    if not hasattr(http1, "_send_error_response"):
        return

    async def send_error(status: int) -> None:
        what = "has too large a head" if status == _TOO_LARGE else "is not HTTP/1.1 that this node can read"
        body = error_json(InvalidRequestError(f"The request {what}.", code="malformed_request"))
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        await http1._send_h11_event(h11.Response(status_code=status, headers=headers))
        await http1._send_h11_event(h11.Data(data=body))
        await http1._send_h11_event(h11.EndOfMessage())

    http1._send_error_response = send_error
