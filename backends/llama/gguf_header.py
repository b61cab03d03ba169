"""Look at a GGUF file before llama.cpp does: a broken one gets a sentence instead of a crash.

    magic, version, counts | key-value pairs | tensor names, shapes, offsets | padding | tensor data

Only what can be told from the header: everything lies inside the file, and nothing is absurd.
"""

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.errors import ModelFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)

_MAX_COUNT = 1 << 24
"""Of pairs, tensors and array items. Real files stay a hundred times below."""

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

_BLOCKS = {  # ggml type: values in a block, bytes of a block
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2),
}  # fmt: skip
"""For the types most files have; a tensor of another type counts as empty."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says about itself. Arrays are not kept."""

    values: dict[str, Any]
    tensors: dict[str, int]
    """Bytes of each, by name; up to where the next one begins, so that types nobody here knows count as well."""

    @property
    def architecture(self) -> str:
        """ "llama", "qwen2", "bert", ..."""
        return str(self.values.get("general.architecture", ""))


def read_header(path: str) -> Header:
    """Read and check the header of the file at `path`.

    Raises:
        ModelFileError: missing, unreadable, not GGUF, truncated or damaged.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        if file.is_dir():
            raise ModelFileError(f"{file} is a folder; a GGUF file is needed", param="path")
        if size < 24:
            raise ModelFileError(f"{file} is not a GGUF file: it has only {size} bytes", param="path")
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _Reader(file, view).header()
    except OSError as exc:
        raise ModelFileError(f"cannot read {file}: {os.strerror(exc.errno or 0)}", param="path") from exc


class _Reader:
    def __init__(self, file: Path, view: mmap.mmap) -> None:
        self._file = file
        self._view = view
        self._at = 0

    def header(self) -> Header:
        if self._view[:4] != MAGIC:
            raise self._damaged(f"not a GGUF file: it begins with {bytes(self._view[:4])!r}")
        self._at = 4
        version = self._number("I")
        if version not in VERSIONS:
            raise self._damaged(f"GGUF version {version} is not supported, only {VERSIONS[0]} and {VERSIONS[1]}")
        tensors = self._count("tensors")
        pairs = self._count("key-value pairs")
        values = dict(self._pair() for _ in range(pairs))
        found = [self._tensor() for _ in range(tensors)]
        if not tensors:
            raise self._damaged("it holds no tensors")
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._damaged(f"damaged: an alignment of {alignment}")
        data_at = -(-self._at // alignment) * alignment
        missing = data_at + max(end for _, _, end in found) - len(self._view)
        if missing > 0:
            raise self._damaged(f"truncated: {missing} bytes of tensor data are missing at its end")
        begins = sorted((begin, name) for name, begin, _ in found)
        ends = [*(begin for begin, _ in begins[1:]), len(self._view) - data_at]
        return Header(values, {name: end - begin for (begin, name), end in zip(begins, ends, strict=True)})

    def _pair(self) -> tuple[str, Any]:
        key = self._text()
        return key, self._value(self._number("I"))

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            item = self._number("I")
            count = self._count("array items")
            if item in _NUMBERS:
                self._skip(count * struct.calcsize(_NUMBERS[item]))
            else:
                for _ in range(count):
                    self._value(item)
            return None
        if kind not in _NUMBERS:
            raise self._damaged(f"damaged: a value of unknown type {kind} at byte {self._at}")
        return self._number(_NUMBERS[kind])

    def _tensor(self) -> tuple[str, int, int]:
        """Name, and where its data begins and ends."""
        name = self._text()
        dimensions = self._number("I")
        if not 0 <= dimensions <= 4:
            raise self._damaged(f"damaged: a tensor of {dimensions} dimensions")
        values = 1
        for _ in range(dimensions):
            values *= self._number("Q")
        per_block, block_bytes = _BLOCKS.get(self._number("I"), (1, 0))
        offset: int = self._number("Q")
        return name, offset, offset + values // per_block * block_bytes

    def _count(self, what: str) -> int:
        count: int = self._number("Q")
        if count > _MAX_COUNT:
            raise self._damaged(f"damaged: it claims {count} {what}")
        return count

    def _text(self) -> str:
        length: int = self._number("Q")
        start = self._at
        self._skip(length)
        return self._view[start : self._at].decode(errors="replace")

    def _number(self, code: str) -> Any:
        start = self._at
        self._skip(struct.calcsize(code))
        return struct.unpack_from(f"<{code}", self._view, start)[0]

    def _skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._view):
            raise self._damaged(f"truncated: its header ends after {len(self._view)} bytes")

    def _damaged(self, reason: str) -> ModelFileError:
        return ModelFileError(f"{self._file} is {reason}" if reason[:3] == "not" else f"{self._file}: {reason}")
