"""Small pictures and sounds, made here."""

import io
import math
import struct
import wave

from PIL import Image


def picture(
    red: int = 200, green: int = 30, blue: int = 60, *, size: tuple[int, int] = (48, 36), form: str = "PNG"
) -> bytes:
    """A file with a slope of colours, so that no two parts of it are alike."""
    width, height = size
    image = Image.new("RGB", size)
    image.putdata(
        [
            ((red + 3 * x) % 256, (green + 5 * y) % 256, (blue + x * y) % 256)
            for y in range(height)
            for x in range(width)
        ]
    )
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def sound(hertz: float = 440.0, *, seconds: float = 0.5, rate: int = 16000) -> bytes:
    """A WAV file with one tone."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        count = int(seconds * rate)
        samples = (int(20000 * math.sin(2 * math.pi * hertz * at / rate)) for at in range(count))
        out.writeframes(struct.pack(f"<{count}h", *samples))
    return file.getvalue()


def lying_png(width: int, height: int) -> bytes:
    """A PNG of some bytes that says it is that large."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
