"""Words spoken by espeak-ng, and when each of them begins: what conch is taught and examined with.

Unlike the speech engine, which speaks for people, this sets the pitch and listens to the library's events.
"""

import _ctypes
import ctypes
import shutil
import tempfile
from dataclasses import dataclass
from typing import Self

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Of everything here, in Hz: what whisper hears."""

Samples = NDArray[np.float32]

_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_WORD = 1
_QUIET = 0.01
"""Sound below this part of the loudest is not speech yet, or no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """Who speaks, and how."""

    language: str
    """As espeak-ng's files are called, e.g. "gmw/en-US"."""
    timbre: str = ""
    """A variant of espeak-ng's, e.g. "f2"; none is its usual voice."""
    rate: int = 175
    """Words a minute."""
    pitch: int = 50
    """0 to 100."""
    pitch_range: int = 50
    """0 (all on one tone) to 100."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Words as they were spoken, nothing before and after them."""

    words: tuple[str, ...]
    begins: tuple[float, ...]
    """When each word begins, in seconds."""
    samples: Samples

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Speaker:
    """A copy of the library of its own, which makes the sound of the first words repeatable; `close` it."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile(suffix=".so") as copy:
            with open(espeakng_loader.get_library_path(), "rb") as original:
                shutil.copyfileobj(original, copy)
            copy.flush()
            self._library = ctypes.CDLL(copy.name)
        data = str(espeakng_loader.get_data_path()).encode()
        self._rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 200, data, _DONT_EXIT)
        self._pieces: list[bytes] = []
        self._begins: list[float] = []
        self._callback = _Callback(self._heard)  # Kept: the library holds only a bare pointer.
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unload this copy. Only once, and nothing may be said afterwards."""
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)
        del self._callback

    def say(self, text: str, voice: Voice) -> Clip:
        """Speak words that are separated by spaces or commas.

        Raises:
            ValueError: there is no such voice, or the library joined words.
        """
        name = f"{voice.language}+{voice.timbre}" if voice.timbre else voice.language
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {name!r}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_PITCH_RANGE, voice.pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces, self._begins = [], []
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(encoded, len(encoded), 0, 0, 0, _UTF8, None, None)
        return self._clip(tuple(text.replace(",", " ").split()))

    def _clip(self, words: tuple[str, ...]) -> Clip:
        if len(self._begins) != len(words):
            raise ValueError(f"{len(words)} words became {len(self._begins)}: {' '.join(words)}")
        samples = resampled(np.frombuffer(b"".join(self._pieces), np.int16).astype(np.float32), self._rate) / 32768
        loud = np.flatnonzero(np.abs(samples) > _QUIET * np.abs(samples).max())
        begin, end = loud[0], loud[-1] + 1
        shift = begin / SAMPLE_RATE
        begins = tuple(max(0.0, at - shift) for at in self._begins)
        return Clip(words, begins, np.ascontiguousarray(samples[begin:end]))

    def _heard(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]") -> int:
        index = 0
        while events[index].type != 0:
            if events[index].type == _WORD:
                self._begins.append(events[index].audio_position / 1000)
            index += 1
        if samples and count > 0:
            self._pieces.append(ctypes.string_at(samples, count * 2))
        return 0


def resampled(samples: Samples, rate: float) -> Samples:
    """The same sound at `SAMPLE_RATE`, by cutting or padding its spectrum."""
    length = round(len(samples) * SAMPLE_RATE / rate)
    spectrum = np.fft.rfft(samples)
    wanted = length // 2 + 1
    spectrum = np.pad(spectrum, (0, max(0, wanted - len(spectrum))))[:wanted]
    return np.asarray(np.fft.irfft(spectrum, length) * (length / len(samples)), np.float32)
