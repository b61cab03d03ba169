"""The file of a request, from its pieces onto the disk, where decoders can seek in it. Nothing of it stays behind."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from typing import BinaryIO, cast

from backends.blobs import MAX_PIECE
from backends.errors import InvalidValueError, OutOfMemoryError
from backends.rpc import backend_pb2 as pb

AT_ONCE = 1024 * 1024
"""Bytes that are written together: in a thread, so that a slow disk holds up nobody else."""


@contextlib.asynccontextmanager
async def spooled(messages: AsyncIterator[pb.TranscribeRequest], most: int) -> AsyncIterator[BinaryIO]:
    """The whole file, without a name in any folder: it is gone when it is closed, and when this process dies.

    Raises:
        InvalidValueError: it has more than `most` bytes, or ends early.
        OutOfMemoryError: the disk is full.
    """
    with tempfile.TemporaryFile(dir=_folder()) as file:
        await _fill(cast("BinaryIO", file), messages, most)
        yield cast("BinaryIO", file)


def _folder() -> str | None:
    """Where large files go for a while: a disk rather than memory, unless somebody says otherwise."""
    large = "/var/tmp"
    return large if "TMPDIR" not in os.environ and os.access(large, os.W_OK) else None


async def _fill(file: BinaryIO, messages: AsyncIterator[pb.TranscribeRequest], most: int) -> None:
    waiting = bytearray()
    size = 0
    is_whole = False
    async for message in messages:
        piece = message.blob
        size += len(piece.data)
        if len(piece.data) > MAX_PIECE or size > most:
            raise InvalidValueError(f"the file may have {most} bytes, each piece of it {MAX_PIECE}", param="file")
        waiting += piece.data
        is_whole = piece.last
        if len(waiting) >= AT_ONCE or is_whole:
            await _write(file, bytes(waiting))
            waiting.clear()
        if is_whole:
            break
    if not is_whole:
        raise InvalidValueError("the request ends before its file does", param="file")


async def _write(file: BinaryIO, data: bytes) -> None:
    try:
        await asyncio.to_thread(file.write, data)
    except OSError as exc:
        raise OutOfMemoryError(f"there is no room on this node for the file: {exc.strerror or exc}") from exc
