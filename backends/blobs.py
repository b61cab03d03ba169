"""Files that follow a request, put together from their pieces, within bounds."""

from collections.abc import AsyncIterator
from typing import Any

from backends.errors import InvalidValueError
from backends.rpc import backend_pb2 as pb

MAX_PIECE = 256 * 1024
MAX_BLOBS = 64
MAX_BLOB_BYTES = 64 * 1024 * 1024
"""Of all files of one request together."""

MAX_NAME = 200


async def gather(messages: AsyncIterator[Any], count: int) -> dict[str, bytes]:
    """The `count` files in the `blob`s of the next `messages`, by name.

    Raises:
        InvalidValueError: they are too many or too large, or end early.
    """
    if count > MAX_BLOBS:
        raise InvalidValueError(f"{count} files follow the request; at most {MAX_BLOBS} may")
    whole: dict[str, bytes] = {}
    parts: dict[str, bytearray] = {}
    size = 0
    while len(whole) < count:
        message = await anext(messages, None)
        if message is None:
            raise InvalidValueError(f"the request ends before all of its {count} files are there")
        blob: pb.Blob = message.blob
        size += len(blob.data)
        if len(blob.data) > MAX_PIECE or size > MAX_BLOB_BYTES:
            raise InvalidValueError(f"the files of a request may have {MAX_BLOB_BYTES} bytes, each piece {MAX_PIECE}")
        if not 0 < len(blob.name) <= MAX_NAME or blob.name in whole or len(parts) + len(whole) > count:
            raise InvalidValueError("a piece of a file that the request does not have")
        parts.setdefault(blob.name, bytearray()).extend(blob.data)
        if blob.last:
            whole[blob.name] = bytes(parts.pop(blob.name))
    return whole
