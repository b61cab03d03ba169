"""What tells two models of one name apart: a digest of everything that changes their answers.

    digest = sha256(engine, settings that change answers, sha256 of each file of weights)

Same digest on two nodes means: either may continue what the other began. So settings that only change
speed or memory do not count, and neither does the name. Hashing a large file takes as long as reading
it, so each file is hashed once: the result is kept, with size, time and inode of the file, in a JSON
file in the data folder. If that file is damaged it is made anew.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gallery.card import ModelCard
from gallery.weights import weight_files

DIGEST_LENGTH = 32
"""Hex digits kept: 128 bits, and records of many models stay small."""

READ_BYTES = 4 * 1024 * 1024

CACHE_VERSION = 1

SPEED_SETTINGS: Mapping[str, frozenset[str]] = {
    "echo": frozenset(
        [
            *("slots", "queue", "context_length", "token_interval", "prefill_seconds", "load_seconds"),
            # A test that breaks one node and expects another to go on needs them to be the same model.
            *("crash_after_tokens", "fail_load"),
        ]
    ),
    "diffusers": frozenset(["queue", "offload", "slicing", "threads", "max_pixels", "max_steps"]),
    "llama": frozenset(
        [
            *("slots", "queue", "context_length", "kept_prefixes"),
            *("threads", "batch", "prompt_slice", "gpu_layers", "tensor_split", "main_gpu", "devices"),
            *("lookup_tokens", "draft_tokens"),
        ]
    ),
}
"""Settings, by engine, that change how fast or how much, never what is answered. When in doubt a setting
stays out of this list: then two nodes merely do not continue each other's answers."""

log = logging.getLogger(__name__)

_FileKey = tuple[str, int, int, int]


class DigestCache:
    """Digests of model cards, and the file that remembers those of weights."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] | None = None
        self._hashing: dict[_FileKey, _Hashing] = {}

    async def digest(self, card: ModelCard) -> str:
        """The digest of `card`; hashes its weights unless that was done before.

        Cancelled, it stops reading, unless somebody else waits for the same file.

        Raises:
            OSError: a file cannot be read.
        """
        files = [await self._file_digest(path) for path in _files(card)]
        return combined(card.engine, card.settings, files, _scales(card))

    def known(self, card: ModelCard) -> str | None:
        """The digest of `card` if it takes no hashing.

        Raises:
            OSError: a file cannot be read.
        """
        files = [self._recall(_file_key(path)) for path in _files(card)]
        whole = [file for file in files if file is not None]
        return combined(card.engine, card.settings, whole, _scales(card)) if len(whole) == len(files) else None

    def file_sha256(self, path: Path) -> str | None:
        """The sha256 of a file, if it takes no hashing.

        Raises:
            OSError: the file cannot be read.
        """
        return self._recall(_file_key(path))

    def remember(self, path: Path, sha256: str) -> None:
        """The digest of a file that was just hashed elsewhere.

        Raises:
            OSError: it is not there.
        """
        self._remember(_file_key(path), sha256)

    async def _file_digest(self, path: Path) -> str:
        key = _file_key(path)
        if known := self._recall(key):
            return known
        hashing = self._hashing.get(key)
        if hashing is None:
            hashing = self._hashing[key] = _Hashing(path)
        try:
            digest = await hashing.result()
        finally:
            if not hashing.is_wanted:
                self._hashing.pop(key, None)
        # Written to while it was read: the digest belongs to neither version.
        if _file_key(path) == key:
            self._remember(key, digest)
        return digest

    def _recall(self, key: _FileKey) -> str | None:
        path, *stamp = key
        entry = self._entries().get(path)
        return entry["sha256"] if entry and entry["stamp"] == stamp else None

    def _remember(self, key: _FileKey, digest: str) -> None:
        path, *stamp = key
        entries = self._entries()
        entries[path] = {"stamp": stamp, "sha256": digest}
        for gone in [name for name in entries if not os.path.exists(name)]:
            del entries[gone]
        text = json.dumps({"version": CACHE_VERSION, "files": entries}, indent=1)
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._path)
        except OSError as exc:
            # A full disk: everything works, only the next start hashes again.
            log.warning("cannot write %s: %s", self._path, exc.strerror or exc)
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _entries(self) -> dict[str, dict[str, Any]]:
        if self._known is None:
            self._known = _read_cache(self._path)
        return self._known


def combined(engine: str, settings: Mapping[str, Any], files: list[str], scales: list[float] | None = None) -> str:
    """The digest of a model made of these parts; `scales` are those of its adapters, the last of `files`."""
    speed_only = SPEED_SETTINGS.get(engine, frozenset())
    telling = {key: value for key, value in settings.items() if key not in speed_only and value is not None}
    whole = json.dumps([engine, telling, files, *([scales] if scales else [])], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(whole.encode()).hexdigest()[:DIGEST_LENGTH]


def _files(card: ModelCard) -> Iterator[Path]:
    """All files of the weights, of a folder everything in it by name; the projector; the adapters. A draft model is
    none of them: what it guesses changes no answer."""
    if card.path is None:
        return
    yield from weight_files(card.path)
    if card.projector is not None:
        yield card.projector
    for adapter in card.adapters:
        yield adapter.path


def _scales(card: ModelCard) -> list[float]:
    return [adapter.scale for adapter in card.adapters]


def _file_key(path: Path) -> _FileKey:
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino


class _Hashing:
    """One file being hashed, for however many want to know. The last one to give up ends it."""

    def __init__(self, path: Path) -> None:
        self._task = asyncio.create_task(_hash_in_thread(path))
        self._waiting = 0

    @property
    def is_wanted(self) -> bool:
        return self._waiting > 0

    async def result(self) -> str:
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._task.cancel()


async def _hash_in_thread(path: Path) -> str:
    # The thread cannot be cancelled, so it looks at a flag between reads.
    abandoned = threading.Event()
    try:
        return await asyncio.to_thread(_hash, path, abandoned)
    finally:
        abandoned.set()


def _hash(path: Path, abandoned: threading.Event) -> str:
    sha = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while not abandoned.is_set() and (data := file.read(READ_BYTES)):
            sha.update(data)
    return sha.hexdigest()


def _read_cache(path: Path) -> dict[str, dict[str, Any]]:
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole["version"] != CACHE_VERSION:
            return {}
        return {
            str(name): {"stamp": [int(n) for n in entry["stamp"]], "sha256": str(entry["sha256"])}
            for name, entry in whole["files"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        log.info("%s is damaged; models are hashed again", path)
        return {}
