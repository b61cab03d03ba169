"""Reads the header of a GGUF file: as much of the file as it takes, and no more."""

from pathlib import Path

from gallery.errors import WeightsError
from gallery.gguf_header import GgufHeader, HeaderError, MoreNeededError, parse_header

FIRST_READ_BYTES = 1024 * 1024

MAX_HEADER_BYTES = 256 * 1024 * 1024
"""The largest vocabularies (a quarter of a million tokens) make headers of about 15 MB."""


def read_header(path: Path) -> GgufHeader:
    """The header of the file at `path`.

    Raises:
        WeightsError: it cannot be read, is no GGUF file, or is cut short.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            wanted = FIRST_READ_BYTES
            while True:
                file.seek(0)
                data = file.read(min(wanted, size))
                try:
                    return parse_header(data, size)
                except MoreNeededError:
                    if len(data) >= size:
                        raise WeightsError(path, "is cut short: it ends within its header") from None
                    if wanted >= MAX_HEADER_BYTES:
                        raise WeightsError(path, "is no usable GGUF file: its header has no end") from None
                wanted *= 16
    except HeaderError as exc:
        raise WeightsError(path, str(exc)) from exc
    except OSError as exc:
        raise WeightsError(path, f"cannot be read: {exc.strerror or exc}") from exc
