"""What a transcription is asked for, checked, in the words of faster-whisper. Pure."""

import difflib
import math
from collections.abc import Collection
from dataclasses import dataclass

from backends.errors import InvalidValueError, UnsupportedError
from backends.rpc import backend_pb2 as pb

FALLBACK = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Temperatures that are tried one after the other, as long as what comes out is unlikely or repeats itself."""

MAX_PROMPT = 32_000
"""Characters. The model looks at the last 223 tokens of it."""

ENGLISH = "en"


@dataclass(frozen=True)
class WhisperSettings:
    """What a model's YAML may say under `settings`."""

    slots: int = 1
    """Files that are transcribed at once."""
    queue: int = 64
    device: str = "auto"
    """"auto", "cpu" or "cuda"."""
    compute_type: str = "default"
    """Of the weights in memory: "default" (as in the file), "int8", "float16", "float32", ..."""
    threads: int = 0
    """On a CPU, for each file; 0: as many as there are cores, at most four."""
    language: str = ""
    """Spoken, when a request does not say; empty: detected."""
    voice_filter: bool = False
    """Leave out what is no speech, also when a request does not ask for it."""
    beam_size: int = 5
    batch_size: int = 1
    """Stretches of speech heard at once. Above 1 it is faster, on a GPU above all, but what was said before does not
    help, the voice filter is always on, and the temperature stays what it is."""
    block_seconds: float = 300.0
    """How much of a file is in memory at once. It is cut where it is quiet."""
    max_file_mb: int = 1024
    max_hours: float = 24.0
    """Longest sound of one file; small files can hold very long ones."""

    def __post_init__(self) -> None:
        if self.slots < 1 or self.queue < 0:
            raise ValueError("slots must be at least 1 and queue at least 0")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be auto, cpu or cuda, not {self.device!r}")
        if not 1 <= self.beam_size <= 32 or not 1 <= self.batch_size <= 256:
            raise ValueError("beam_size must be 1 to 32 and batch_size 1 to 256")
        if not 60 <= self.block_seconds <= 3600:
            raise ValueError("block_seconds must be 60 to 3600")
        if self.max_file_mb < 1 or not 0 < self.max_hours <= 240:
            raise ValueError("max_file_mb must be at least 1, and max_hours 240 at most")
        if self.threads < 0:
            raise ValueError("threads must not be negative")


@dataclass(frozen=True, slots=True)
class Job:
    """One transcription."""

    language: str | None
    """None: to be detected."""
    task: str
    prompt: str | None
    temperatures: tuple[float, ...]
    words: bool
    voice_filter: bool


def read_job(params: pb.TranscribeParams, settings: WhisperSettings, languages: Collection[str]) -> Job:
    """What `params` ask of a model that knows `languages`.

    Raises:
        InvalidValueError: it makes no sense.
        UnsupportedError: this model cannot do it.
    """
    is_multilingual = set(languages) != {ENGLISH}
    language = params.language.lower() or settings.language or None
    if language is not None and language not in languages:
        raise InvalidValueError(_unknown(language, languages), param="language")
    if params.translate and not is_multilingual:
        raise UnsupportedError("this model knows English only, so it cannot translate into it")
    if len(params.prompt) > MAX_PROMPT:
        reason = f"the prompt has {len(params.prompt)} characters; at most {MAX_PROMPT} are read"
        raise InvalidValueError(reason, param="prompt")
    temperature = params.temperature
    if not (math.isfinite(temperature) and 0 <= temperature <= 1):
        raise InvalidValueError(f"temperature must be between 0 and 1, not {temperature}", param="temperature")
    return Job(
        language=language,
        task="translate" if params.translate else "transcribe",
        prompt=params.prompt.strip() or None,
        temperatures=(temperature,) if temperature else FALLBACK,
        words=params.word_timestamps,
        voice_filter=params.voice_filter or settings.voice_filter,
    )


def _unknown(language: str, languages: Collection[str]) -> str:
    if set(languages) == {ENGLISH}:
        return f"this model knows English only, not {language[:40]!r}"
    near = difflib.get_close_matches(language, languages, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "use a code of ISO 639-1, such as en, de or zh"
    return f"this model knows no language {language[:40]!r}; {hint}"
