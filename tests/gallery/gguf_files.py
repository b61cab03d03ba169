"""Small GGUF files, written by hand so that they can also be written wrong."""

import struct
from collections.abc import Mapping, Sequence

UINT32, INT32, STRING, ARRAY = 4, 5, 8, 9
F32 = 0

Value = int | str | Sequence[str] | Sequence[int]
Tensor = tuple[str, Sequence[int]]


def gguf(
    metadata: Mapping[str, Value] | None = None,
    tensors: Sequence[Tensor] = (("weight", (4, 8)),),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensor_count: int | None = None,
    metadata_count: int | None = None,
) -> bytes:
    """A whole file: header, and zeros for data. The counts may lie."""
    if metadata is None:
        metadata = {"general.architecture": "llama", "llama.context_length": 4096}
    header = magic + struct.pack("<I", version)
    header += struct.pack("<Q", len(tensors) if tensor_count is None else tensor_count)
    header += struct.pack("<Q", len(metadata) if metadata_count is None else metadata_count)
    for key, value in metadata.items():
        header += text(key) + _value(value)
    offset = 0
    for name, shape in tensors:
        header += text(name) + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", size) for size in shape)
        header += struct.pack("<IQ", F32, offset)
        offset += _product(shape) * 4
    return header + bytes(-len(header) % 32 + offset)


def text(value: str) -> bytes:
    """A text as GGUF stores it."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + text(value)
    if value and isinstance(value[0], str):
        items = b"".join(text(str(item)) for item in value)
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + items
    items = b"".join(struct.pack("<i", item) for item in value)
    return struct.pack("<IIQ", ARRAY, INT32, len(value)) + items


def _product(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
