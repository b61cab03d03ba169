"""What a GGUF file says about itself, without an engine and without trust.

    magic, version, counts │ metadata: key, type, value │ tensors: name, shape, type, offset │ data
    └──────────────────────────── the header: all that is read ───────────────────────────┘

`parse_header` is a plain function of bytes. Every length in the file is checked against what is there
before it is used, so a hostile file costs no more than its own size. Layout:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

MAX_METADATA = 65_536
MAX_TENSORS = 1_000_000
MAX_KEPT_TEXT_BYTES = 4 * 1024 * 1024
MAX_DIMENSIONS = 8
MAX_CACHE_BYTES_PER_TOKEN = 64 * 1024 * 1024

_UINT8, _INT8, _UINT16, _INT16, _UINT32, _INT32, _FLOAT32, _BOOL = range(8)
_STRING, _ARRAY, _UINT64, _INT64, _FLOAT64 = range(8, 13)

_SCALARS = {
    _UINT8: struct.Struct("<B"),
    _INT8: struct.Struct("<b"),
    _UINT16: struct.Struct("<H"),
    _INT16: struct.Struct("<h"),
    _UINT32: struct.Struct("<I"),
    _INT32: struct.Struct("<i"),
    _FLOAT32: struct.Struct("<f"),
    _BOOL: struct.Struct("<?"),
    _UINT64: struct.Struct("<Q"),
    _INT64: struct.Struct("<q"),
    _FLOAT64: struct.Struct("<d"),
}

# fmt: off
_BLOCK_BY_TENSOR_TYPE: Mapping[int, tuple[int, int]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}
# fmt: on
"""Weights per block and bytes per block of ggml's tensor types. A type that is missing here is newer than
this table: then only the start of its data is checked."""

_POOLING_RANK = 4

_ENCODERS = frozenset(
    [
        *("bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "modern-bert", "eurobert"),
        *("jina-bert-v2", "jina-bert-v3", "gemma-embedding", "t5encoder"),
    ]
)
"""Architectures that only read: they give vectors, never text."""


_SENSES = {"clip.has_vision_encoder": "vision", "clip.has_audio_encoder": "audio_in"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """The part of a GGUF header that matters before loading."""

    version: int
    architecture: str
    name: str = ""
    context_length: int = 0
    """0 where the file does not say."""
    has_chat_template: bool = False
    mentions_tools: bool = False
    """The chat template does something about tools."""
    pooling_type: int | None = None
    parameters: int = 0
    """Weights in this file; of several parts, in this part."""
    parts: int = 1
    is_adapter: bool = False
    """Changes to the weights of another model (LoRA)."""
    senses: tuple[str, ...] = ()
    """What a projector adds to the abilities of its model."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What a llama engine can do with it, as far as the header tells."""
        if self.architecture == "clip":
            return ()
        if self.pooling_type == _POOLING_RANK:
            return ("rerank",)
        if self.architecture in _ENCODERS:
            return ("embedding",)
        chat = ("chat",) if self.has_chat_template else ()
        tools = ("tools",) if self.mentions_tools else ()
        return (*chat, "completion", "embedding", *tools)


class MoreNeededError(Exception):
    """The bytes end before the header does."""


class HeaderError(Exception):
    """These bytes are no GGUF header; the message goes on after the file's name."""


def parse_header(data: bytes, file_size: int) -> GgufHeader:
    """The header that `data`, the beginning of a file of `file_size` bytes, holds.

    Raises:
        HeaderError: this is no GGUF file, or a damaged one.
        MoreNeededError: `data` ends before the header does.
    """
    reader = _Reader(data, file_size)
    version = _check_magic(reader, file_size)
    tensor_count = reader.count(MAX_TENSORS, "tensors")
    metadata_count = reader.count(MAX_METADATA, "metadata entries")
    metadata = _read_metadata(reader, metadata_count)
    parameters, data_bytes = _read_tensors(reader, tensor_count)
    alignment = _whole(metadata.get("general.alignment"), 32)
    if not 1 <= alignment <= 1 << 20:
        raise HeaderError(f"is damaged: an alignment of {alignment}")
    needed = (reader.position + alignment - 1) // alignment * alignment + data_bytes
    if tensor_count and file_size < needed:
        raise HeaderError(f"is cut short: it has {file_size:,} of {needed:,} bytes; copy or download it again")
    architecture = str(metadata.get("general.architecture", ""))
    template = str(metadata.get("tokenizer.chat_template", ""))
    pooling = metadata.get(f"{architecture}.pooling_type")
    return GgufHeader(
        version=version,
        architecture=architecture,
        name=str(metadata.get("general.name", "")),
        context_length=_whole(metadata.get(f"{architecture}.context_length"), 0),
        has_chat_template=bool(template),
        mentions_tools="tools" in template,
        pooling_type=pooling if isinstance(pooling, int) else None,
        parameters=parameters,
        parts=max(1, _whole(metadata.get("split.count"), 1)),
        is_adapter=metadata.get("general.type") == "adapter",
        senses=tuple(word for key, word in _SENSES.items() if metadata.get(key) is True),
    )


def cache_bytes_per_token(beginning: bytes) -> int:
    """What a token of context takes in the cache, in bytes, as the first kilobytes of a file tell; 0 if they do not.

    Keys and values of 16 bits in every layer: models that look at a window, or keep a state instead, take less.
    """
    reader = _Reader(beginning, 1 << 62)
    metadata: dict[str, object] = {}
    try:
        _check_magic(reader, 1)
        reader.count(MAX_TENSORS, "tensors")
        for _ in range(reader.count(MAX_METADATA, "metadata entries")):
            metadata |= _read_metadata(reader, 1)
    except (MoreNeededError, HeaderError):
        pass  # What was read until then is enough, or is not.
    architecture = metadata.get("general.architecture")

    def number(key: str) -> int:
        return max(0, _whole(metadata.get(f"{architecture}.{key}"), 0))

    heads = number("attention.head_count")
    usual = number("embedding_length") // heads if heads else 0
    width = (number("attention.key_length") or usual) + (number("attention.value_length") or usual)
    return min(2 * number("block_count") * number("attention.head_count_kv") * width, MAX_CACHE_BYTES_PER_TOKEN)


def _check_magic(reader: "_Reader", file_size: int) -> int:
    if file_size == 0:
        raise HeaderError("is empty")
    if reader.take(4) != b"GGUF":
        raise HeaderError("is not a GGUF file")
    version = int(reader.scalar(_UINT32))
    if version & 0xFFFF == 0:
        raise HeaderError("was made for a big-endian machine; convert it for this one")
    if version not in (2, 3):
        raise HeaderError(f"has GGUF version {version}; versions 2 and 3 can be read")
    return version


def _read_metadata(reader: "_Reader", count: int) -> dict[str, object]:
    metadata: dict[str, object] = {}
    for _ in range(count):
        key = reader.text()
        kind = int(reader.scalar(_UINT32))
        if kind == _STRING:
            metadata[key] = reader.text()
        elif kind == _ARRAY:
            reader.skip_array()
        elif kind in _SCALARS:
            metadata[key] = reader.scalar(kind)
        else:
            raise HeaderError(f"is damaged: metadata {key[:60]!r} has the unknown type {kind}")
    return metadata


def _read_tensors(reader: "_Reader", count: int) -> tuple[int, int]:
    """How many weights there are, and how many bytes their data takes."""
    parameters = data_bytes = 0
    for _ in range(count):
        name = reader.text()
        dimensions = int(reader.scalar(_UINT32))
        if dimensions > MAX_DIMENSIONS:
            raise HeaderError(f"is damaged: tensor {name[:60]!r} has {dimensions} dimensions")
        weights = 1
        for _ in range(dimensions):
            weights *= int(reader.scalar(_UINT64))
        kind = int(reader.scalar(_UINT32))
        offset = int(reader.scalar(_UINT64))
        per_block, block_bytes = _BLOCK_BY_TENSOR_TYPE.get(kind, (1, 0))
        parameters += weights
        data_bytes = max(data_bytes, offset + weights // per_block * block_bytes)
    return parameters, data_bytes


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


class _Reader:
    """A position in the header's bytes, which never moves past what is there."""

    def __init__(self, data: bytes, file_size: int) -> None:
        self._data = data
        self._file_size = file_size
        self.position = 0

    def take(self, size: int) -> bytes:
        start = self.position
        self._advance(size)
        return self._data[start : self.position]

    def scalar(self, kind: int) -> int | float | bool:
        form = _SCALARS[kind]
        start = self.position
        self._advance(form.size)
        value: int | float | bool = form.unpack_from(self._data, start)[0]
        return value

    def count(self, limit: int, what: str) -> int:
        count = int(self.scalar(_UINT64))
        if count > limit:
            raise HeaderError(f"is damaged: it claims {count:,} {what}")
        return count

    def text(self) -> str:
        size = int(self.scalar(_UINT64))
        if size > MAX_KEPT_TEXT_BYTES:
            raise HeaderError(f"is damaged: a text of {size:,} bytes in its header")
        return self.take(size).decode("utf-8", errors="replace")

    def skip_array(self, depth: int = 0) -> None:
        kind = int(self.scalar(_UINT32))
        count = int(self.scalar(_UINT64))
        if kind in _SCALARS:
            self._advance(_SCALARS[kind].size * count)
        elif kind == _STRING:
            self._skip_texts(count)
        elif kind == _ARRAY and depth < 2:
            # Each inner array has at least its own head of 12 bytes.
            self._check_room(12 * count)
            for _ in range(count):
                self.skip_array(depth + 1)
        else:
            raise HeaderError(f"is damaged: an array of the unknown type {kind}")

    def _skip_texts(self, count: int) -> None:
        # Vocabularies are long: this loop is most of the time a header takes, so it is written for speed.
        self._check_room(8 * count)
        data, position, end = self._data, self.position, len(self._data)
        length_of = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if position + 8 > end:
                raise MoreNeededError
            position += 8 + length_of(data, position)[0]
        self._advance(position - self.position)

    def _advance(self, size: int) -> None:
        self._check_room(size)
        if self.position + size > len(self._data):
            raise MoreNeededError
        self.position += size

    def _check_room(self, size: int) -> None:
        if self.position + size > max(self._file_size, len(self._data)):
            raise HeaderError("is cut short or damaged: its header does not fit into the file")
