"""How long sounds last, told before they are decoded."""

import struct

import pytest

from backends.errors import InvalidValueError
from backends.llama.sounds import check_sound
from tests.helpers.media import sound

MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(413)
"""MPEG 1 layer III, 128 kbit/s at 44.1 kHz: 417 bytes, 26 ms."""


def wav(*, rate: int = 16000, bits: int = 16, kind: int = 1, data: int = 32000) -> bytes:
    header = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 0, b"WAVE", b"fmt ", 16, kind, 1, rate, 0, bits // 8, bits)
    return header + b"data" + struct.pack("<I", data) + bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(sound(), id="WAV"),
        pytest.param(wav(bits=8, rate=8000), id="8 bits"),
        pytest.param(MP3_FRAME * 40, id="MP3"),
        pytest.param(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + MP3_FRAME * 40, id="MP3 with a tag"),
        pytest.param(MP3_FRAME * 40 + b"TAG" + bytes(125), id="MP3 with a tag at its end"),
    ],
)
def test_usual_files_pass(data: bytes) -> None:
    check_sound(data, "sound 1")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "neither WAV nor MP3", id="empty"),
        pytest.param(b"OggS" + bytes(40), "neither WAV nor MP3", id="Ogg"),
        pytest.param(wav(rate=1), "impossible header", id="one sample a second unfolds to 16000"),
        pytest.param(wav(kind=2), "of a kind that is not read", id="ADPCM"),
        pytest.param(wav(data=0), "holds no sound", id="no samples"),
        pytest.param(wav(data=2), "shorter than 0.1 s", id="one sample, which would end the process"),
        pytest.param(wav()[:30], "without sound", id="only a header"),
        pytest.param(wav(bits=8, rate=4000, data=4000 * 601), "lasts 601 s", id="too long"),
        pytest.param(MP3_FRAME * 23_000, "at most 600 s", id="a long MP3"),
        pytest.param(b"\xff\xfb\x00\x00" + bytes(5000), "free bit rate", id="frames of no known size"),
        pytest.param(MP3_FRAME * 2 + bytes(5000), "damaged", id="hardly any frames"),
    ],
)
def test_others_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        check_sound(data, "sound 1")
