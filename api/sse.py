"""Server-sent events as bytes. One event per JSON value; JSON never contains a raw newline."""

DONE = b"data: [DONE]\n\n"
"""How OpenAI ends a stream that went well."""

HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    # nginx would otherwise collect the stream before passing it on.
    ("x-accel-buffering", "no"),
)


def event(json: bytes) -> bytes:
    return b"data: " + json + b"\n\n"
