"""What a header says, and how little a wrong one can do."""

import contextlib
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gallery.errors import WeightsError
from gallery.gguf_file import FIRST_READ_BYTES, read_header
from gallery.gguf_header import GgufHeader, HeaderError, MoreNeededError, cache_bytes_per_token, parse_header
from tests.gallery.gguf_files import ARRAY, STRING, Value, gguf, text

CHAT = {
    "general.architecture": "llama",
    "general.name": "Small One",
    "llama.context_length": 8192,
    "tokenizer.ggml.tokens": ["a", "bc", ""],
    "tokenizer.ggml.token_type": [1, 1, 3],
    "tokenizer.chat_template": "{{ messages }}",
}


def parse(data: bytes) -> GgufHeader:
    return parse_header(data, len(data))


def test_a_header_tells_what_matters_before_loading() -> None:
    header = parse(gguf(CHAT, [("a", (4, 8)), ("b", (10,))]))

    assert header == GgufHeader(
        version=3,
        architecture="llama",
        name="Small One",
        context_length=8192,
        has_chat_template=True,
        parameters=42,
    )


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        pytest.param(CHAT, ("chat", "completion", "embedding"), id="with a chat template"),
        pytest.param(
            CHAT | {"tokenizer.chat_template": "{% if tools %}"},
            ("chat", "completion", "embedding", "tools"),
            id="with tools in it",
        ),
        pytest.param({"general.architecture": "llama"}, ("completion", "embedding"), id="without"),
        pytest.param({"general.architecture": "bert"}, ("embedding",), id="an encoder"),
        pytest.param({"general.architecture": "qwen3", "qwen3.pooling_type": 4}, ("rerank",), id="a reranker"),
        pytest.param({"general.architecture": "clip"}, (), id="a projector"),
    ],
)
def test_capabilities(metadata: dict[str, str], expected: tuple[str, ...]) -> None:
    assert parse(gguf(metadata)).capabilities == expected


def test_the_built_in_model_is_understood() -> None:
    path = Path(__file__).parents[2] / "gallery" / "minnow" / "minnow.gguf"

    header = read_header(path)

    assert header.architecture == "llama"
    assert header.has_chat_template
    assert header.context_length >= 2048
    assert header.parameters > 1_000_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"<!DOCTYPE html>" * 100, "is not a GGUF file", id="a web page"),
        pytest.param(gguf(version=1), "has GGUF version 1", id="an old version"),
        pytest.param(gguf(version=0x03000000), "big-endian", id="for another machine"),
        pytest.param(gguf(tensor_count=2**60), "claims 1,152,921,504,606,846,976 tensors", id="tensors"),
        pytest.param(gguf(metadata_count=2**60), "metadata entries", id="metadata"),
        pytest.param(gguf({"general.alignment": 0}), "an alignment of 0", id="alignment"),
        pytest.param(gguf(tensors=[("t", [1] * 9)]), "has 9 dimensions", id="dimensions"),
        pytest.param(
            gguf(tensors=[("t", (4, 8))])[:-1], "cut short: it has .* bytes; copy or download", id="data missing"
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(HeaderError, match=reason):
        parse(data)


def test_lengths_larger_than_the_file_are_refused() -> None:
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    hostile = [
        start + struct.pack("<Q", 2**63),
        start + text("k") + struct.pack("<IQ", STRING, 2**40),
        start + text("k") + struct.pack("<IIQ", ARRAY, 4, 2**62),
        start + text("k") + struct.pack("<IIQ", ARRAY, STRING, 2**62),
        start + text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 2**62),
        start + text("k") + struct.pack("<IIQ", ARRAY, 77, 1),
        start + text("k") + struct.pack("<I", 99),
    ]

    for data in hostile:
        with pytest.raises(HeaderError):
            parse(data + bytes(64))


def test_half_a_header_asks_for_more() -> None:
    whole = gguf(CHAT)

    with pytest.raises(MoreNeededError):
        parse_header(whole[:100], len(whole))


@given(st.binary(max_size=200), st.integers(0, 400))
def test_garbage_never_does_anything_else(garbage: bytes, cut: int) -> None:
    for data in (b"GGUF" + garbage, gguf(CHAT)[:cut] + garbage):
        with contextlib.suppress(HeaderError, MoreNeededError):
            parse(data)


def test_a_file_cut_within_its_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(gguf(CHAT)[:150])

    with pytest.raises(WeightsError, match=r"cut\.gguf: is cut short"):
        read_header(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.gguf: cannot be read: No such file"):
        read_header(tmp_path / "gone.gguf")


def test_a_large_vocabulary_is_read_on_and_quickly(tmp_path: Path) -> None:
    tokens = [f"token-{number}" for number in range(150_000)]
    path = tmp_path / "large.gguf"
    path.write_bytes(gguf({"general.architecture": "qwen2", "t": tokens, "tokenizer.chat_template": "x"}))
    assert path.stat().st_size > FIRST_READ_BYTES

    began = time.monotonic()
    header = read_header(path)

    assert header.has_chat_template
    # A tenth of a second in truth.
    assert time.monotonic() - began < 3


def test_the_cache_of_a_token_is_told_by_the_beginning_of_a_file() -> None:
    shape: dict[str, Value] = {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.embedding_length": 4096,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "tokenizer.ggml.tokens": ["x" * 100] * 1000,
    }

    beginning = gguf(shape)[:400]

    # Llama 3.1 8B: 32 layers, 8 heads of 128 for keys and as many for values, 16 bits each.
    assert cache_bytes_per_token(beginning) == 128 * 1024
    assert cache_bytes_per_token(beginning[:100]) == 0
    assert cache_bytes_per_token(b"<html>") == 0


@given(st.binary(max_size=300))
def test_no_beginning_is_too_strange(data: bytes) -> None:
    assert cache_bytes_per_token(b"GGUF\x03\0\0\0" + data) >= 0
