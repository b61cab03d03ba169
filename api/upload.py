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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from werkzeug.http import parse_options_header

from api.errors import InvalidRequestError, UnavailableError

PIECE_BYTES = 256 * 1024
"""Of a file, when it is read."""

AT_ONCE = 1024 * 1024
"""Bytes that are written together, in a thread: a slow disk must hold up nobody else."""

MOST_FIELDS_BYTES = 1024 * 1024
"""Of all fields of one form together."""

MOST_PARTS = 256

MOST_FILES = 16
"""Each is an open file of the node, which must not run out of them."""


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
            await reader.feed(part)
        reader.finish()
        yield reader.form
    finally:
        reader.form.close()


class _Reader:
    """What the parser finds, taken down in order and then carried out: writing to a disk has to be awaited."""

    def __init__(self, boundary: bytes, spool: Spool) -> None:
        self._spool = spool
        self._found: list[Callable[[], Awaitable[None]]] = []
        self._head_name = self._head_value = b""
        self._head: dict[str, str] = {}
        self._parts = self._field_bytes = 0
        self._is_whole = False
        self._name = ""
        self._upload: Upload | None = None
        self._text = bytearray()
        self._parser = _parser(boundary, self)
        self.form = Form()

    async def feed(self, data: bytes) -> None:
        """Takes what came next."""
        with _explained():
            self._parser.write(data)
            for step in self._found:
                await step()
        self._found.clear()

    def finish(self) -> None:
        """Nothing comes any more."""
        if not self._is_whole:
            raise _unreadable("it breaks off")

    # What the parser calls

    def on_part_begin(self) -> None:
        self._head = {}
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidRequestError(f"The form has more than {MOST_PARTS} parts.")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._head_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._head_value += data[start:end]

    def on_header_end(self) -> None:
        self._head[self._head_name.decode("ascii", "replace").lower()] = self._head_value.decode("utf-8")
        self._head_name = self._head_value = b""

    def on_headers_finished(self) -> None:
        self._found.append(partial(self._begin, self._head))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(partial(self._add, data[start:end]))

    def on_part_end(self) -> None:
        self._found.append(self._end)

    def on_end(self) -> None:
        self._is_whole = True

    # What is done about it

    async def _begin(self, head: Mapping[str, str]) -> None:
        _, options = parse_options_header(head.get("content-disposition"))
        self._name = options.get("name", "")
        if not self._name:
            raise _unreadable("it has a part without a name")
        self._count(len(self._name))
        self._text.clear()
        self._upload = None
        if (filename := options.get("filename")) is not None:
            if len(self.form.files) >= MOST_FILES:
                raise InvalidRequestError(f"The form has more than {MOST_FILES} files.")
            self._upload = self._spool.open()
            self.form.files.append(self._upload)
            self._upload.field, self._upload.name = self._name, filename
            self._upload.media_type = head.get("content-type", "")

    async def _add(self, data: bytes) -> None:
        if self._upload is not None:
            await self._upload.write(data)
        else:
            self._count(len(data))
            self._text += data

    async def _end(self) -> None:
        if self._upload is not None:
            await self._upload.flush()
        else:
            self.form.fields.setdefault(self._name, []).append(self._text.decode("utf-8"))

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > MOST_FIELDS_BYTES:
            raise InvalidRequestError(f"The fields of the form have more than {MOST_FIELDS_BYTES} bytes.")


def _parser(boundary: bytes, reader: _Reader) -> MultipartParser:
    with _explained():
        return MultipartParser(
            boundary,
            {
                "on_part_begin": reader.on_part_begin,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_header_end": reader.on_header_end,
                "on_headers_finished": reader.on_headers_finished,
                "on_part_data": reader.on_part_data,
                "on_part_end": reader.on_part_end,
                "on_end": reader.on_end,
            },
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (FormParserError, ValueError) as error:
        raise _unreadable("it has a field that is no text" if isinstance(error, UnicodeError) else str(error)) from None


def _unreadable(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"The form cannot be read: {reason}.", code="invalid_form")


def _no_room(reason: str) -> UnavailableError:
    return UnavailableError(f"This node has no room on its disk for the upload: {reason}.", retry_after=10)
