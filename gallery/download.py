"""Fetches one file: several ranges at once, hashed while it comes, resumed where it broke off, atomic into place.

    NAME.part        the bytes, each at its place
    NAME.part.json   the journal: which of them are there; whoever writes down that the file is installed removes it
    NAME             the file, whole and verified

`DownloadPlan` decides; here are the sockets, threads and files. Blocking: it runs in the worker process. A kill at
any moment leaves a part and a journal (the next call goes on from there) or the file.
"""

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from gallery.download_plan import Claim, DownloadConfig, DownloadPlan
from gallery.errors import InstallError
from gallery.journal import MAX_BYTES, Journal, decode, encode
from gallery.web import Answer, Web, check_status

BUFFER_BYTES = 256 * 1024
HASH_BYTES = 1024 * 1024
JOURNAL_EVERY = 1.0
REPORT_EVERY = 0.2
SPARE_BYTES = 64 * 1024 * 1024
"""Of the disk, left for everybody else."""
FRESH_STARTS = 2
"""How often a file is fetched anew because it changed, or because what came is not what was promised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file elsewhere, as far as its source describes it."""

    url: str
    name: str
    """What it is called here: one part of a path, nothing else."""
    size: int | None = None
    sha256: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    advice: str = ""
    """What to do about a missing token."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is in place."""

    path: Path
    size: int
    sha256: str


Result = TypeVar("Result")

Report = Callable[[int, int], None]
"""Bytes that are here, and bytes of the file."""


class _ChangedError(Exception):
    """The file is not the one that was begun."""


def fetch(file: RemoteFile, folder: Path, web: Web, *, report: Report, config: DownloadConfig | None = None) -> Fetched:
    """Brings `file` into `folder`.

    Raises:
        InstallError: it cannot be had; what arrived stays for the next attempt, unless it is wrong.
    """
    config = config or DownloadConfig()
    target = folder / file.name
    if file.sha256 and target.exists() and (file.size is None or target.stat().st_size == file.size):
        here = hash_file(target)
        if here == file.sha256:
            return Fetched(target, target.stat().st_size, here)
    part = folder / f"{file.name}.part"
    for attempt in range(FRESH_STARTS + 1):
        is_last = attempt == FRESH_STARTS
        try:
            size, digest = _Download(file, part, target, web, report, config).run()
        except _ChangedError:
            forget(part)
            if is_last:
                raise InstallError(f"{file.name} changes on its server while it is read", code="changed") from None
            continue
        if file.sha256 in (None, digest):
            _into_place(part, target)
            return Fetched(target, size, digest)
        forget(part)
    raise InstallError(
        f"{file.name} arrived damaged {FRESH_STARTS + 1} times: its sha256 is {digest}, not {file.sha256}",
        code="corrupt",
    )


def patiently(work: Callable[[], Result], config: DownloadConfig) -> Result:
    """What `work` returns, after as many attempts as a download has, if its failures may pass.

    Raises:
        InstallError: the last failure.
    """
    trial = DownloadPlan(1, config)
    while True:
        try:
            return work()
        except InstallError as error:
            now = time.monotonic()
            trial.failed(now, error.retry_after)
            if not error.may_pass or trial.is_given_up:
                raise
            time.sleep(trial.wait_until - now)


def forget(part: Path) -> None:
    """Removes a partial file and its journal."""
    part.unlink(missing_ok=True)
    _journal_path(part).unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """The sha256 of a file in hex."""
    sha = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while data := file.read(HASH_BYTES):
            sha.update(data)
    return sha.hexdigest()


def check_disk(folder: Path, needed: int) -> None:
    """Raises InstallError where `needed` more bytes do not fit."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise InstallError(
            f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free in {folder}; make room there",
            code="disk_full",
        )


def already_here(file: RemoteFile, folder: Path) -> int:
    """Bytes of a file that need no more room on the disk."""
    try:
        return (folder / file.name).stat().st_size
    except OSError:
        journal = _read_journal(folder / f"{file.name}.part")
        return sum(r.size for r in journal.done) if journal else 0


class _Download:
    """One attempt at one file."""

    def __init__(
        self, file: RemoteFile, part: Path, target: Path, web: Web, report: Report, config: DownloadConfig
    ) -> None:
        self._file = file
        self._part = part
        self._target = target
        self._web = web
        self._report = report
        self._config = config
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._failure: BaseException | None = None
        self._digest = ""
        self._fd = -1

    def run(self) -> tuple[int, str]:
        """Size and sha256 of the part, once it is whole."""
        journal, ranges = self._probe()
        old = _read_journal(self._part)
        is_same = old is not None and ranges and old.continues(journal)
        if is_same and not self._part.exists() and _size_of(self._target) == journal.size:
            self._target.replace(self._part)  # It was whole, and nobody had written that down yet.
        if old is not None and is_same and self._part.exists():
            journal = replace(journal, done=old.done)
        else:
            forget(self._part)
        self._journal = journal
        self._plan = DownloadPlan(journal.size, self._config, journal.done, in_order=not ranges)
        check_disk(self._part.parent, journal.size - self._plan.fetched)
        self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._save()
            self._work()
            os.fsync(self._fd)
        except OSError as error:
            code = "disk_full" if error.errno == 28 else "unreachable"
            raise InstallError(f"{self._part} cannot be written: {error.strerror or error}", code=code) from error
        finally:
            os.close(self._fd)
        return journal.size, self._digest

    # ------------------------------------------------------------------ what there is to fetch

    def _probe(self) -> tuple[Journal, bool]:
        """What the server says about the file, and whether it gives ranges of it."""

        def ask() -> tuple[Journal, bool]:
            with self._get("bytes=0-0") as answer:
                return self._described(answer)

        return patiently(ask, self._config)

    def _described(self, answer: Answer) -> tuple[Journal, bool]:
        headers = answer.headers
        if answer.status == 206:
            total = headers.get("Content-Range", "").rpartition("/")[2]
            ranges = True
        elif answer.status == 416:
            raise InstallError(f"{self._file.name} is empty on its server", code="corrupt")
        else:
            check_status(answer, self._file.name, self._file.advice)
            total = headers.get("Content-Length", "")
            ranges = False
        if not (total.isascii() and total.isdigit()):
            raise InstallError(f"the server does not say how large {self._file.name} is", code="unsupported")
        size = int(total)
        if self._file.size is not None and size != self._file.size:
            raise _ChangedError
        etag = headers.get("ETag", "")
        validator = etag if etag.startswith('"') else headers.get("Last-Modified")
        journal = Journal(size=size, sha256=self._file.sha256, validator=validator, url=self._file.url)
        return journal, ranges

    @contextlib.contextmanager
    def _get(self, span: str | None) -> Iterator[Answer]:
        headers = dict(self._file.headers)
        if span is not None:
            headers["Range"] = span
        with self._web.get(self._file.url, headers) as answer:
            yield answer

    # ------------------------------------------------------------------ lanes

    def _work(self) -> None:
        work = [self._hash, *[self._lane] * self._config.lanes]
        threads = [threading.Thread(target=self._guard, args=(part,), daemon=True) for part in work]
        for thread in threads:
            thread.start()
        saved = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            with self._news:
                self._news.wait(REPORT_EVERY)
                fetched = self._plan.fetched
            self._report(fetched, self._plan.size)
            if time.monotonic() - saved >= JOURNAL_EVERY:
                self._save()
                saved = time.monotonic()
        self._save()
        if self._failure is not None:
            raise self._failure

    def _guard(self, work: Callable[[], None]) -> None:
        """Runs a thread's work; the first one that breaks ends the others."""
        try:
            work()
        except BaseException as error:
            with self._news:
                self._failure = self._failure or error
                self._news.notify_all()

    def _lane(self) -> None:
        while (claim := self._next()) is not None:
            try:
                self._read(claim)
            except InstallError as error:
                now = time.monotonic()
                with self._news:
                    self._plan.give_back(claim)
                    self._plan.failed(now, error.retry_after, too_many=error.code == "rate_limited")
                    is_over = self._plan.is_given_up
                if is_over or not error.may_pass:
                    raise
            except BaseException:
                with self._news:
                    self._plan.give_back(claim)
                raise
            else:
                with self._news:
                    self._plan.give_back(claim)
                    self._news.notify_all()

    def _next(self) -> Claim | None:
        """The next bytes for this lane; None when there is nothing left to do."""
        with self._news:
            while self._failure is None and not self._plan.is_complete:
                now = time.monotonic()
                claim = self._plan.take(now)
                if claim is not None:
                    return claim
                # Another lane may yet give its bytes back.
                self._news.wait(max(0.05, min(self._plan.wait_until - now, 1.0)))
        return None

    def _read(self, claim: Claim) -> None:
        span = None if self._plan.in_order else f"bytes={claim.start}-{claim.end - 1}"
        with self._get(span) as answer:
            self._check(answer, claim, is_range=span is not None)
            while claim.at < claim.end:
                data = answer.read(min(BUFFER_BYTES, claim.end - claim.at))
                now = time.monotonic()
                if not data:
                    raise InstallError(f"{self._file.name}: the server broke off", code="unreachable")
                _write_all(self._fd, memoryview(data), claim.at)
                with self._news:
                    self._plan.received(claim, len(data), now)
                    if self._failure is not None:
                        return
                    if self._plan.is_stalled(claim, now):
                        raise InstallError(f"{self._file.name}: next to nothing comes", code="unreachable")

    def _check(self, answer: Answer, claim: Claim, *, is_range: bool) -> None:
        if not is_range:
            check_status(answer, self._file.name, self._file.advice)
            if answer.headers.get("Content-Length") != str(claim.end):
                raise _ChangedError
            return
        if answer.status in (200, 412, 416):
            raise _ChangedError
        check_status(answer, self._file.name, self._file.advice)
        etag = answer.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")
        wanted = f"bytes {claim.start}-{claim.end - 1}/{self._plan.size}"
        if answer.headers.get("Content-Range") != wanted or validator != self._journal.validator:
            raise _ChangedError

    # ------------------------------------------------------------------ hash and journal

    def _hash(self) -> None:
        """Hashes the beginning of the file as far as it is there, until all of it is."""
        sha = hashlib.sha256()
        buffer = bytearray(HASH_BYTES)
        at = 0
        while at < self._plan.size:
            with self._news:
                if self._failure is not None:
                    return
                ready = self._plan.contiguous
                if ready <= at:
                    self._news.wait(0.1)
                    continue
            while at < ready:
                count = os.preadv(self._fd, [memoryview(buffer)[: min(HASH_BYTES, ready - at)]], at)
                if not count:
                    raise OSError(5, "it became shorter")
                sha.update(memoryview(buffer)[:count])
                at += count
        self._digest = sha.hexdigest()

    def _save(self) -> None:
        with self._lock:
            done = () if self._plan.in_order else self._plan.written()
        path = _journal_path(self._part)
        temporary = path.with_name(path.name + ".new")
        temporary.write_text(encode(replace(self._journal, done=done)), encoding="utf-8")
        temporary.replace(path)


def _write_all(fd: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(fd, data, at)
        data, at = data[count:], at + count


def _into_place(part: Path, target: Path) -> None:
    # The journal stays until the model is written down: a file whose digest nobody promised is known by it.
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _journal_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_journal(part: Path) -> Journal | None:
    try:
        with _journal_path(part).open("rb") as file:
            return decode(file.read(MAX_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
