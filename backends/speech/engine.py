"""The speech engine: espeak-ng speaks, PyAV writes the file, one sentence after the other, in a thread per slot."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version

from backends.engine import Engine, Report
from backends.errors import EngineError, InvalidValueError, NotLoadedError
from backends.rpc import backend_pb2 as pb
from backends.settings import read_settings
from backends.slots import Slots
from backends.speech.espeak import FASTEST, SLOWEST, Espeak, EspeakError, Language
from backends.speech.sentences import sentences
from backends.speech.sound_file import MEDIA_TYPES, SAMPLE_RATE, SoundFile
from backends.speech.voices import OPENAI, UnknownVoiceError, voice_for

MAX_TEXT = 100_000
"""Characters of one request: two hours of speech."""

SPEED = 0.25, 4.0
"""Slowest and fastest that may be asked for, as factors; OpenAI's."""

PIECE_BYTES = 256 * 1024


@dataclass(frozen=True)
class SpeechSettings:
    """What a model's YAML may say under `settings`."""

    voice: str = ""
    """Spoken with when the request names none."""
    slots: int = 4
    queue: int = 64

    def __post_init__(self) -> None:
        if self.slots < 1 or self.queue < 0:
            raise ValueError("slots must be at least 1 and queue at least 0")


class SpeechEngine(Engine):
    """Text to speech without weights."""

    name = "speech"

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._settings = SpeechSettings()
        self._slots = Slots(0, 0, changed)
        self._languages: Mapping[str, Language] = {}
        self._threads: ThreadPoolExecutor | None = None

    def describe(self) -> pb.DescribeReply:
        return pb.DescribeReply(
            engine=self.name,
            version=f"espeakng-loader {version('espeakng-loader')}",
            methods=["Speak", "ListVoices"],
            devices=[pb.Device(kind="cpu")],
        )

    async def load(self, request: pb.LoadRequest, report: Report) -> pb.LoadedModel:
        settings = read_settings(SpeechSettings, request.settings_json)
        try:
            with Espeak() as espeak:
                languages = espeak.languages
            voice = voice_for(settings.voice, "", languages)
        except EspeakError as exc:
            raise EngineError(str(exc)) from exc
        except UnknownVoiceError as exc:
            raise InvalidValueError(str(exc), param="voice") from exc
        self._settings, self._languages = settings, languages
        self._slots = Slots(settings.slots, settings.queue, self._changed)
        self._threads = ThreadPoolExecutor(settings.slots, thread_name_prefix="speech")
        return pb.LoadedModel(
            slots=settings.slots,
            capabilities=["speech"],
            summary=f"espeak-ng: {len(languages)} languages, speaks {voice!r} when no voice is named",
        )

    async def unload(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        self._threads = None
        self._slots = Slots(0, 0, self._changed)

    def state(self) -> pb.State:
        return pb.State(slots=self._slots.count, busy=self._slots.busy, queued=self._slots.queued)

    async def list_voices(self, request: pb.VoicesRequest) -> pb.VoicesReply:
        own = voice_for(self._settings.voice, "", self._languages)
        named = [
            pb.Voice(id=name, name=f"{name.title()} ({voice})", language=voice.partition("+")[0])
            for name, voice in OPENAI.items()
        ]
        native = [pb.Voice(id=code, name=known.name, language=code) for code, known in sorted(self._languages.items())]
        return pb.VoicesReply(voices=sorted([*named, *native], key=lambda voice: voice.id != own))

    async def speak(self, request: pb.SpeechRequest) -> AsyncGenerator[pb.SpeechReply, None]:
        if self._threads is None:
            raise NotLoadedError
        job = _read(request, self._settings, self._languages)
        async with self._slots.one():
            speech = _Speech(job)
            pieces = speech.pieces()
            try:
                yield pb.SpeechReply(
                    info=pb.SpeechInfo(media_type=MEDIA_TYPES[job.format], sample_rate=SAMPLE_RATE, channels=1)
                )
                while (data := await _next(self._threads, speech, pieces)) is not None:
                    for begin in range(0, len(data), PIECE_BYTES):
                        yield pb.SpeechReply(audio=data[begin : begin + PIECE_BYTES])
                yield pb.SpeechReply(usage=pb.Usage(prompt_tokens=len(request.text)))
            finally:
                pieces.close()


@dataclass(frozen=True, slots=True)
class _Job:
    sentences: list[str]
    voice: str
    speed: float
    format: str


def _read(request: pb.SpeechRequest, settings: SpeechSettings, languages: Mapping[str, Language]) -> _Job:
    if len(request.text) > MAX_TEXT:
        raise InvalidValueError(f"the text has {len(request.text)} characters; {MAX_TEXT} may be spoken", param="input")
    spoken = list(sentences(request.text))
    if not spoken:
        raise InvalidValueError("there is nothing to say: the text has no letter and no digit", param="input")
    kind = request.format or "mp3"
    if kind not in MEDIA_TYPES:
        known = ", ".join(MEDIA_TYPES)
        raise InvalidValueError(f"unknown sound format {kind!r}; known are {known}", param="response_format")
    speed = request.speed or 1.0
    if not (math.isfinite(speed) and SPEED[0] <= speed <= SPEED[1]):
        raise InvalidValueError(f"speed must be between {SPEED[0]} and {SPEED[1]}, not {speed}", param="speed")
    try:
        voice = voice_for(request.voice or settings.voice, request.language, languages)
    except UnknownVoiceError as exc:
        raise InvalidValueError(str(exc), param="voice") from exc
    code, plus, timbre = voice.partition("+")
    return _Job(spoken, languages[code].file + plus + timbre, speed, kind)


class _Speech:
    """One text on its way into one file."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self.is_over = False
        """Set from outside: nobody listens any more."""

    def pieces(self) -> Generator[bytes, None, None]:
        """The file, about a sentence at a time; ends early when it `is_over`. Slow: not for the event loop."""
        job = self._job
        # What the library cannot reach by itself is done by stretching its sound.
        speed = min(max(job.speed, SLOWEST), FASTEST)
        with Espeak() as espeak, closing(SoundFile(job.format, espeak.sample_rate, tempo=job.speed / speed)) as file:
            for sentence in job.sentences:
                ready: list[bytes] = []

                def hear(samples: bytes, ready: list[bytes] = ready) -> bool:
                    ready.append(file.write(samples))
                    return not self.is_over

                espeak.speak(sentence, job.voice, speed, hear)
                yield b"".join(ready)
            yield file.finish()


async def _next(threads: ThreadPoolExecutor, speech: _Speech, pieces: Generator[bytes, None, None]) -> bytes | None:
    """The next piece; None at the end. When this is cancelled, the thread has let go of `pieces` before it ends."""
    future = asyncio.get_running_loop().run_in_executor(threads, next, pieces, None)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        speech.is_over = True
        await asyncio.wait([future])
        raise
