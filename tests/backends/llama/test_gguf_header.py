"""Broken model files get a sentence instead of a crash."""

import struct
from pathlib import Path

import pytest

from backends.errors import ModelFileError
from backends.llama.gguf_header import read_header

MINNOW = Path("gallery/minnow/minnow.gguf")


def test_a_good_file_is_read() -> None:
    assert read_header(str(MINNOW)).architecture == "llama"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "only 0 bytes", id="empty"),
        pytest.param(b"PK\x03\x04" + bytes(100), "not a GGUF file", id="something else"),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 99, 1, 1) + bytes(100), "version 99", id="a version to come"),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1), "claims", id="absurd counts"),
        pytest.param(b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1 << 40), "truncated", id="a text past the end"),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(9), "no tensors", id="nothing in it"),
    ],
)
def test_a_bad_file_is_named_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)

    with pytest.raises(ModelFileError, match=reason) as caught:
        read_header(str(file))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_recognised_wherever_it_ends(tmp_path: Path, share: float) -> None:
    whole = MINNOW.read_bytes()
    file = tmp_path / "short.gguf"
    file.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(ModelFileError, match="truncated"):
        read_header(str(file))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        read_header(str(tmp_path / "none.gguf"))
    with pytest.raises(ModelFileError, match="is a folder"):
        read_header(str(tmp_path))
