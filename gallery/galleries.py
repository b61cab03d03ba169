"""All galleries of a node: the one that ships, and those that were added by folder or by address.

    DIR/index.yaml            name, entries: [a, b]
    DIR/entries/a.yaml        one per model

A gallery at an address is copied into the cache and read from there, so it goes on working offline. Where two galleries
have a name, the one that was added beats the one that ships. One broken entry is one problem; the others work.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from gallery.entry_file import Entry, Index, parse_entry, parse_gallery
from gallery.errors import CardError, GalleryError, InstallError
from gallery.web import Web, check_status
from gallery.yaml_nodes import MAX_CARD_BYTES

SHIPPED = Path(__file__).parent
ENTRIES = "entries"
FRESH_FOR = 3600.0
"""Seconds until a gallery at an address is asked for again."""
MAX_INDEX_BYTES = MAX_CARD_BYTES


class Galleries:
    """Reads what has changed since it last read. Blocking."""

    def __init__(
        self, cache: Path, added: Iterable[str] = (), *, now: Callable[[], float] = time.time, shipped: Path = SHIPPED
    ) -> None:
        self._cache = cache
        self._added = tuple(added)
        self._now = now
        self._shipped = shipped
        self._read: dict[Path, tuple[tuple[int, int], Entry]] = {}
        self.problems: tuple[str, ...] = ()
        """What is wrong with galleries, a sentence each."""

    def entries(self) -> list[Entry]:
        """Every entry of every gallery, by name."""
        problems: list[str] = []
        found: dict[str, Entry] = {}
        for where in (str(self._shipped), *self._added):
            with _noting(problems):
                folder = self._folder(where, problems)
                index = parse_gallery(_text(folder / "index.yaml"), folder / "index.yaml")
                for name in index.entries:
                    with _noting(problems):
                        found[name] = self._entry(folder / ENTRIES / f"{name}.yaml", name, index)
        self.problems = tuple(problems)
        return [entry for _, entry in sorted(found.items())]

    def find(self, name: str) -> Entry | None:
        """The entry of that name or alias."""
        entries = self.entries()
        wanted = name.lower()
        exact = [entry for entry in entries if entry.name.lower() == wanted]
        other = [entry for entry in entries if any(alias.lower() == wanted for alias in entry.aliases)]
        return next(iter(exact + other), None)

    def _entry(self, path: Path, name: str, index: Index) -> Entry:
        try:
            stat = path.stat()
        except OSError as error:
            raise CardError(path, f"cannot be read: {error.strerror}") from error
        stamp = (stat.st_mtime_ns, stat.st_size)
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            known = self._read[path] = (stamp, parse_entry(_text(path), path, name))
        return replace(known[1], gallery=index.name)

    def _folder(self, where: str, problems: list[str]) -> Path:
        if not where.startswith(("http://", "https://")):
            return Path(where)
        folder = self._cache / hashlib.sha256(where.encode()).hexdigest()[:16]
        if not is_due(_fetched_at(folder), self._now()):
            return folder
        try:
            self._copy(where, folder)
        except InstallError as error:
            if not (folder / "index.yaml").exists():
                raise
            problems.append(f"gallery {where}: {error}; what was fetched before is used")
        return folder

    def _copy(self, url: str, folder: Path) -> None:
        """Fetches a gallery into the cache, its index last: what is there before stays usable until then."""
        web = Web(url)
        base = url if url.endswith("/index.yaml") else url.rstrip("/") + "/index.yaml"
        text = _get(web, base)
        index = parse_gallery(text, Path(base))
        (folder / ENTRIES).mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in index.entries:
            body = _get(web, base.removesuffix("index.yaml") + f"{ENTRIES}/{name}.yaml")
            _write(folder / ENTRIES / f"{name}.yaml", body)
        _write(folder / "index.yaml", text)
        _write(folder / "fetched.json", json.dumps({"url": url, "at": self._now()}))


def is_due(fetched_at: float | None, now: float) -> bool:
    """Whether a gallery that was fetched then is asked for again. A clock that was turned back makes it due."""
    return fetched_at is None or not 0 <= now - fetched_at < FRESH_FOR


def _fetched_at(folder: Path) -> float | None:
    try:
        return float(json.loads((folder / "fetched.json").read_text(encoding="utf-8"))["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _get(web: Web, url: str) -> str:
    with web.get(url) as answer:
        check_status(answer, url)
        try:
            return answer.text(MAX_INDEX_BYTES).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InstallError(f"{url} is no text file", code="unsupported") from error


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_CARD_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise CardError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CardError(path, "is not a text file") from error


@contextlib.contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except GalleryError as error:
        problems.append(str(error))
