"""How long a WAV or MP3 file is, read from its headers: the check before it is decoded. Pure.

Decoding is llama.cpp's (miniaudio), which unfolds a whole file into memory at once; so what a file may unfold into
is bounded here, from facts that the decoder cannot exceed.
"""

import struct

from backends.errors import InvalidValueError

MAX_SECONDS = 600
"""Of one recording. Its samples take 64 kB a second in memory; models take much less than ten minutes."""

MIN_SECONDS = 0.1
"""llama.cpp ends the process over a sound of a single sample."""

MAX_RATE = 384_000
MIN_RATE = 4_000

FRAMES_SHARE = 0.9
"""Of an MP3 file, at least this much must be frames of a known size: a decoder might see more
in the rest than we do."""

_BIT_RATES = {
    # kbit/s by index, layer III, from ISO 11172-3 and 13818-3.
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def check_sound(data: bytes, where: str) -> None:
    """Raises InvalidValueError where it is no WAV or MP3, or too long."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        seconds = _wav_seconds(data, where)
    elif data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0):
        seconds = _mp3_seconds(data, where)
    else:
        raise _broken(where, "is neither WAV nor MP3")
    if seconds > MAX_SECONDS:
        raise InvalidValueError(f"{where} lasts {seconds:.0f} s; at most {MAX_SECONDS} s are taken", param="messages")
    if seconds < MIN_SECONDS:
        raise _broken(where, "holds no sound" if not seconds else f"is shorter than {MIN_SECONDS} s")


def _wav_seconds(data: bytes, where: str) -> float:
    at, rate, frame = 12, 0, 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if name == b"fmt " and at + 24 <= len(data):
            kind, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", data, at + 8)
            # PCM, float, A-law, mu-law, and the extensible header for them: a frame holds one sample a channel.
            if kind not in (1, 3, 6, 7, 0xFFFE) or not channels or bits not in (8, 16, 24, 32, 64):
                raise _broken(where, "is a WAV file of a kind that is not read here; use 16-bit PCM")
            if not MIN_RATE <= rate <= MAX_RATE or frame != channels * bits // 8:
                raise _broken(where, "is a WAV file with an impossible header")
        elif name == b"data":
            if not rate:
                break
            return float(min(size, len(data) - at - 8) / frame / rate)
        at += 8 + size + size % 2
    raise _broken(where, "is a WAV file without sound in it")


def _mp3_seconds(data: bytes, where: str) -> float:
    at = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        # Four times seven bits, so that they look like no frame.
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    seconds, begin, in_frames = 0.0, at, 0
    while at + 4 <= len(data) and seconds <= MAX_SECONDS:
        frame = _mp3_frame(data[at : at + 4])
        if frame is None:
            # Tags and garbage between frames: decoders look for the next one too.
            following = data.find(b"\xff", at + 1)
            if following < 0:
                break
            at = following
            continue
        size, lasts = frame
        seconds += lasts
        at += size
        in_frames += size
    if seconds <= MAX_SECONDS and in_frames < FRAMES_SHARE * (len(data) - begin):
        raise _broken(where, "is a damaged MP3 file, or of a free bit rate, which is not read here")
    return seconds


def _mp3_frame(header: bytes) -> tuple[int, float] | None:
    """Bytes and seconds of a layer III frame. None: it is no header of one."""
    if header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, rate_index, bits_index = (header[1] >> 3) & 3, (header[2] >> 2) & 3, header[2] >> 4
    if version == 1 or rate_index == 3 or bits_index in (0, 15):
        return None
    rate = _SAMPLE_RATES[version][rate_index]
    kilobits = _BIT_RATES[1 if version == 3 else 2][bits_index]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kilobits * 1000 // rate + ((header[2] >> 1) & 1), samples / rate


def _broken(where: str, what: str) -> InvalidValueError:
    return InvalidValueError(f"{where} {what}", param="messages")
