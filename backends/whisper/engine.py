"""The whisper engine: faster-whisper hears a file, block by block, in a thread per slot."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel

from backends.engine import Engine, Report
from backends.errors import (
    BackendError,
    EngineError,
    InvalidValueError,
    ModelFileError,
    NotLoadedError,
    OutOfMemoryError,
)
from backends.rpc import backend_pb2 as pb
from backends.settings import read_settings
from backends.slots import Slots
from backends.whisper.hearing import Hearing
from backends.whisper.request import WhisperSettings, read_job
from backends.whisper.spool import spooled

NEEDED = ("model.bin", "config.json", "tokenizer.json")
"""Without a tokenizer the library would fetch one from the internet."""

MOST_THREADS = 4
"""Of one file, unless settings say more. Never more than there are cores: they wait for each other, busily, and on two
cores four of them were many times slower than two."""

SIGN_OF_LIFE = 2.0
"""Seconds: a reply says at least so often how far it is. Others take a long silence for a stall."""

log = logging.getLogger(__name__)


class WhisperEngine(Engine):
    """Text from sound."""

    name = "whisper"

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._settings = WhisperSettings()
        self._slots = Slots(0, 0, changed)
        self._model: WhisperModel | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._memory = 0

    def describe(self) -> pb.DescribeReply:
        devices = [pb.Device(kind="cuda", name=f"cuda:{n}") for n in range(ctranslate2.get_cuda_device_count())]
        return pb.DescribeReply(
            engine=self.name,
            version=f"faster-whisper {version('faster-whisper')}, ctranslate2 {ctranslate2.__version__}",
            methods=["Transcribe"],
            devices=[*devices, pb.Device(kind="cpu")],
        )

    async def load(self, request: pb.LoadRequest, report: Report) -> pb.LoadedModel:
        settings = read_settings(WhisperSettings, request.settings_json)
        folder = _folder(request.path)
        report(0.0, "reading weights")
        model, problem = await asyncio.to_thread(_load, folder, settings)
        languages = model.supported_languages
        if settings.language and settings.language not in languages:
            raise InvalidValueError(f"this model knows no language {settings.language!r}", param="language")
        self._settings, self._model = settings, model
        self._slots = Slots(settings.slots, settings.queue, self._changed)
        self._threads = ThreadPoolExecutor(settings.slots, thread_name_prefix="whisper")
        self._memory = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        known = "English" if not model.model.is_multilingual else f"{len(languages)} languages"
        return pb.LoadedModel(
            slots=settings.slots,
            capabilities=["transcription"],
            memory_bytes=self._memory,
            summary=f"{known}; {model.model.compute_type} on {model.model.device}, {settings.slots} files at once"
            + (f"; not on the GPU: {problem}" if problem else ""),
        )

    async def unload(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        self._threads = self._model = None
        self._slots = Slots(0, 0, self._changed)

    def state(self) -> pb.State:
        return pb.State(
            slots=self._slots.count, busy=self._slots.busy, queued=self._slots.queued, memory_bytes=self._memory
        )

    async def transcribe(
        self, params: pb.TranscribeParams, file: AsyncIterator[pb.TranscribeRequest]
    ) -> AsyncGenerator[pb.TranscribeReply, None]:
        model, threads = self._model, self._threads
        if model is None or threads is None:
            raise NotLoadedError
        job = read_job(params, self._settings, model.supported_languages)
        # The slot first: what waits for one stays with its sender, and not on this disk.
        async with self._slots.one(), spooled(file, self._settings.max_file_mb << 20) as sound:
            hearing = Hearing(model, job, self._settings, sound)
            replies = hearing.replies()
            step: asyncio.Future[pb.TranscribeReply | None] | None = None
            try:
                while True:
                    step = asyncio.get_running_loop().run_in_executor(threads, _next, replies)
                    while not (await asyncio.wait([step], timeout=SIGN_OF_LIFE))[0]:
                        yield pb.TranscribeReply(progress=pb.TranscriptProgress(seconds=hearing.seconds))
                    reply = step.result()
                    if reply is None:
                        return
                    yield reply
            finally:
                hearing.is_over = True
                if step is not None and not step.done():
                    # What this call holds is free only when the thread has let go of it.
                    await asyncio.wait([step])
                replies.close()


def _next(replies: Iterator[pb.TranscribeReply]) -> pb.TranscribeReply | None:
    try:
        return next(replies, None)
    except BackendError:
        raise
    except RuntimeError as exc:
        raise _meaning(exc) from exc


def _folder(path: str) -> Path:
    given = Path(path)
    folder = given if given.is_dir() else given.parent
    if not path or not folder.is_dir():
        raise ModelFileError(f"{path or 'no path'}: a whisper model is a folder with {', '.join(NEEDED)}")
    for name in NEEDED:
        if not (folder / name).is_file():
            raise ModelFileError(f"{folder / name} is missing: a whisper model in CTranslate2's form has it")
    return folder


def _load(folder: Path, settings: WhisperSettings) -> tuple[WhisperModel, str]:
    """The model, and why it is not on the GPU that there is."""
    model = _open(folder, settings, settings.device)
    if model.model.device != "cuda" or not (problem := _trial(model)):
        return model, ""
    if settings.device == "cuda":
        raise ModelFileError(f"{folder} cannot be run on the GPU: {problem}")
    log.warning("a GPU is there, but cannot be used: %s", problem)
    return _open(folder, settings, "cpu"), problem


def _trial(model: WhisperModel) -> str:
    """Why a GPU cannot be used; its libraries (cuBLAS, cuDNN) are looked for only when they are needed."""
    silence = np.zeros((model.model.n_mels, model.feature_extractor.nb_max_frames), np.float32)
    try:
        model.encode(silence)
    except RuntimeError as exc:
        return str(exc).splitlines()[0][:200]
    return ""


def _open(folder: Path, settings: WhisperSettings, device: str) -> WhisperModel:
    try:
        return WhisperModel(
            str(folder),
            device=device,
            compute_type=settings.compute_type,
            cpu_threads=settings.threads or min(MOST_THREADS, _cores()),
            num_workers=settings.slots,
            local_files_only=True,
        )
    except (RuntimeError, ValueError, OSError) as exc:
        raise _meaning(exc, folder) from exc
    except Exception as exc:  # The tokenizer's library raises nothing more particular.
        raise ModelFileError(f"{folder}: {exc}") from exc


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _meaning(exc: Exception, folder: Path | None = None) -> BackendError:
    text = str(exc) or type(exc).__name__
    if "out of memory" in text.lower() or "bad_alloc" in text:
        return OutOfMemoryError(f"out of memory: {text}")
    if folder is not None:
        return ModelFileError(f"{folder}: {text}")
    return EngineError(f"the engine broke on this file: {text}")
