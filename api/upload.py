"""Multipart forms with files, as they arrive: fields in memory, files on disk, nothing whole.

    async with read_form(parts, content_type, spool) as form:
        form.text("model")
        form.files[0].pieces()      as often as you like: a file can be sent again when its node dies

A file has no name in any folder, so that nothing is left of it when it is closed or the process dies. How much all
forms together may hold on disk is bounded; `api.request_body` bounds each one and its sender's patience.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData, Preamble

from api.errors import InvalidRequestError, UnavailableError

PIECE_BYTES = 256 * 1024
"""Of a file, when it is read."""

AT_ONCE = 1024 * 1024
"""Bytes that are written together, in a thread: a slow disk must hold up nobody else."""

MOST_FIELDS_BYTES = 1024 * 1024
"""Of all fields of one form together."""

MOST_PARTS = 256

_SLICE = 64 * 1024
_MOST_HEAD = 256 * 1024
"""What the decoder may hold: a slice, and the head of a part or a bit of a boundary."""


class Spool:
    """Room on the disk for the files of running requests."""

    def __init__(self, folder: Path | None, most: int) -> None:
        """`folder`: None for the system's. `most`: bytes of all files together."""
        self._folder = folder
        self._most = most
        self.used = 0

    def open(self) -> "Upload":
        """A new file.

        Raises:
            UnavailableError: the folder cannot be written to.
        """
        try:
            return Upload(self, tempfile.TemporaryFile(dir=self._folder))
        except OSError as error:
            raise _no_room(error.strerror or str(error)) from error

    def take(self, count: int) -> None:
        """Raises UnavailableError: so many more bytes are not to be had now."""
        if self.used + count > self._most:
            raise _no_room("other uploads fill it")
        self.used += count

    def give_back(self, count: int) -> None:
        self.used -= count


class Upload:
    """One file of a form."""

    def __init__(self, spool: Spool, file: IO[bytes]) -> None:
        self._spool = spool
        self._file = file
        self._waiting = bytearray()
        self.field = ""
        self.name = ""
        """As the client calls it: for messages, never for paths."""
        self.media_type = ""
        self.size = 0

    async def write(self, data: bytes) -> None:
        """Raises UnavailableError: the disk is full."""
        self._spool.take(len(data))
        self.size += len(data)
        self._waiting += data
        if len(self._waiting) >= AT_ONCE:
            await self.flush()

    async def flush(self) -> None:
        data, self._waiting = bytes(self._waiting), bytearray()
        try:
            await asyncio.to_thread(self._append, data)
        except OSError as error:
            raise _no_room(error.strerror or str(error)) from error

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file from its beginning, at most `PIECE_BYTES` at a time. Several may read at once."""
        for begin in range(0, self.size, PIECE_BYTES):
            yield await asyncio.to_thread(self._read, begin)

    async def read(self) -> bytes:
        """All of it, for files that are small."""
        return b"".join([piece async for piece in self.pieces()])

    def close(self) -> None:
        """Remove it. Closing twice is fine."""
        if not self._file.closed:
            self._file.close()
            self._spool.give_back(self.size)

    def _append(self, data: bytes) -> None:
        self._file.seek(0, 2)
        self._file.write(data)
        self._file.flush()

    def _read(self, begin: int) -> bytes:
        return os.pread(self._file.fileno(), PIECE_BYTES, begin)


@dataclass(slots=True)
class Form:
    """What a form said."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[Upload] = field(default_factory=list)

    def text(self, name: str) -> str | None:
        """The field's first value; None if it is absent."""
        values = self.fields.get(name)
        return values[0] if values else None

    def list(self, name: str) -> Sequence[str]:
        """Every value of a list, which clients write as `name` or `name[]`."""
        return [*self.fields.get(name, ()), *self.fields.get(f"{name}[]", ())]

    def uploads(self, name: str) -> Sequence[Upload]:
        """The files of a field, `name` or `name[]`."""
        return [upload for upload in self.files if upload.field in (name, f"{name}[]")]

    def close(self) -> None:
        for upload in self.files:
            upload.close()


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a multipart form; None if it is something else."""
    kind, options = parse_options_header(content_type)
    if kind.lower() != "multipart/form-data":
        return None
    return options.get("boundary", "").encode("latin-1", "replace") or None


@contextlib.asynccontextmanager
async def read_form(parts: AsyncIterator[bytes], boundary: bytes, spool: Spool) -> AsyncIterator[Form]:
    """The form in `parts`; its files are there until the block is left.

    Raises:
        InvalidRequestError: it is no form, breaks off, or has too much beside its files.
        UnavailableError: there is no room on the disk.
    """
    reader = _Reader(boundary, spool)
    try:
        async for part in parts:
            for at in range(0, len(part), _SLICE):
                await reader.feed(part[at : at + _SLICE])
        await reader.feed(None)
        yield reader.form
    finally:
        reader.form.close()


class _Reader:
    def __init__(self, boundary: bytes, spool: Spool) -> None:
        self._decoder = MultipartDecoder(boundary, _MOST_HEAD, max_parts=MOST_PARTS)
        self._spool = spool
        self._name = ""
        self._upload: Upload | None = None
        self._text = bytearray()
        self._field_bytes = 0
        self.form = Form()

    async def feed(self, data: bytes | None) -> None:
        """Takes what came next; None: nothing comes any more."""
        try:
            self._decoder.receive_data(data)
            while not isinstance(event := self._decoder.next_event(), NeedData):
                await self._take(event)
                if isinstance(event, Epilogue):
                    return
        except RequestEntityTooLarge:
            raise InvalidRequestError(
                f"The form has more than {MOST_PARTS} parts, or a part with an endless head."
            ) from None
        except ValueError:
            reason = "it breaks off" if data is None else "it is no multipart form"
            raise InvalidRequestError(f"The form cannot be read: {reason}.", code="invalid_form") from None

    async def _take(self, event: object) -> None:
        match event:
            case Preamble() | Epilogue():
                pass
            case File():
                self._begin(event.name)
                self._upload = self._spool.open()
                self.form.files.append(self._upload)
                self._upload.field, self._upload.name = self._name, event.filename
                self._upload.media_type = event.headers.get("content-type", "")
            case Field():
                self._begin(event.name)
                self._upload = None
            case Data():
                await self._add(event)

    def _begin(self, name: str | None) -> None:
        if not name:
            raise InvalidRequestError("The form has a part without a name.", code="invalid_form")
        self._name = name
        self._count(len(name))

    async def _add(self, data: Data) -> None:
        if self._upload is not None:
            await self._upload.write(data.data)
            if not data.more_data:
                await self._upload.flush()
            return
        self._count(len(data.data))
        self._text += data.data
        if not data.more_data:
            text = bytes(self._text).decode("utf-8")  # A UnicodeDecodeError is a ValueError.
            self._text.clear()
            self.form.fields.setdefault(self._name, []).append(text)

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > MOST_FIELDS_BYTES:
            raise InvalidRequestError(f"The fields of the form have more than {MOST_FIELDS_BYTES} bytes.")


def _no_room(reason: str) -> UnavailableError:
    return UnavailableError(f"This node has no room on its disk for the upload: {reason}.", retry_after=10)
