"""What an installed model leaves in the models folder, and in which order, so that a crash leaves no half of one.

models/NAME/…gguf           1. its files, each moved into place whole and verified
models/NAME/install.json    2. the lock: source, commit, sizes and digests, as they were then
models/NAME.yaml            3. the card; from here on the model exists
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gallery.source import name_problem

LOCK_NAME = "install.json"
LOCK_VERSION = 1
PART_SUFFIXES = (".part", ".part.json", ".part.json.new")


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A file, as it was installed."""

    name: str
    size: int
    sha256: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Where an installed model came from, pinned."""

    source: str
    """As it was asked for."""
    resolved: str
    """What that was: repository and commit, or address."""
    why: str
    """Why this variant."""
    licence: str = ""
    quantization: str = ""
    installed_at: int = 0
    """Unix seconds."""
    files: Sequence[LockedFile] = field(default=())

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def model_folder(models: Path, name: str) -> Path:
    """Where the files of an installed model are."""
    return models / name


def write_lock(folder: Path, lock: Lock) -> None:
    """Replaces the lock of the model in `folder`."""
    _write(folder / LOCK_NAME, json.dumps({"version": LOCK_VERSION, **asdict(lock)}, indent=1) + "\n")


def read_lock(folder: Path) -> Lock | None:
    """The lock of the model in `folder`; None if it has none, or a damaged one."""
    try:
        raw = json.loads((folder / LOCK_NAME).read_text(encoding="utf-8"))
        if raw.pop("version") != LOCK_VERSION:
            return None
        files = tuple(LockedFile(f["name"], int(f["size"]), f["sha256"], f["url"]) for f in raw.pop("files"))
        return Lock(files=files, **raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def locks(models: Path) -> Iterator[tuple[str, Lock]]:
    """Every installed model and its lock, by name."""
    with contextlib.suppress(OSError):
        for folder in sorted(models.iterdir()):
            if name_problem(folder.name) is None and (lock := read_lock(folder)) is not None:
                yield folder.name, lock


def card_path(models: Path, name: str) -> Path:
    return models / f"{name}.yaml"


def write_card(models: Path, name: str, body: Mapping[str, Any], source: str) -> None:
    """The model exists from here on. What a person wrote into a card that is there already stays, but for the path."""
    path = card_path(models, name)
    old: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        old = found if isinstance(found, dict) else {}
    if old.get("path") == body["path"]:
        return
    head = f"# Installed from {source}. Edit it as you like: shoal models edit {name}\n"
    _write(path, head + yaml.safe_dump({**body, **old, "path": body["path"]}, sort_keys=False, allow_unicode=True))


def write_card_text(models: Path, name: str, text: str) -> None:
    """Replaces a model's card by what a person wrote; it has been checked."""
    _write(card_path(models, name), text)


def is_a_persons(models: Path, name: str) -> bool:
    """Whether that name belongs to a model that somebody put here by hand."""
    if read_lock(model_folder(models, name)) is not None:
        return False
    return any((models / f"{name}{suffix}").exists() for suffix in (".yaml", ".yml", ".gguf"))


def tidy(folder: Path, lock: Lock) -> None:
    """Removes what an earlier install of another variant left in the model's folder."""
    wanted = {file.name for file in lock.files}
    for path in files_in(folder):
        name = path.relative_to(folder).as_posix()
        if name not in wanted and ("/" in name or name.endswith((".gguf", ".safetensors", *PART_SUFFIXES))):
            path.unlink(missing_ok=True)
    prune(folder)


def files_in(folder: Path) -> list[Path]:
    """Every file of a model's folder, also in its folders."""
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def prune(folder: Path) -> None:
    """Removes folders in which nothing is left, and the model's own if only its lock file is."""
    with contextlib.suppress(OSError):
        for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                inner.rmdir()
        if {path.name for path in folder.iterdir()} <= {".lock"}:
            (folder / ".lock").unlink(missing_ok=True)
            folder.rmdir()


def remove(models: Path, name: str) -> int:
    """Removes an installed model: the card first, so that no half of it is seen. Bytes that became free."""
    freed = folder_bytes(model_folder(models, name))
    card_path(models, name).unlink(missing_ok=True)
    if read_lock(model_folder(models, name)) is not None:
        shutil.rmtree(model_folder(models, name), ignore_errors=True)
        return freed
    return 0


def leftovers(models: Path, busy: frozenset[str]) -> list[Path]:
    """What nobody needs: parts of downloads that are over, and files of installs whose card is gone."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for folder in sorted(p for p in models.iterdir() if p.is_dir() and not p.is_symlink()):
            if folder.name in busy or name_problem(folder.name) is not None:
                continue
            if read_lock(folder) is not None and not card_path(models, folder.name).exists():
                found += files_in(folder)
            else:
                found += [p for p in files_in(folder) if p.name.endswith(PART_SUFFIXES)]
    return found


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder and its folders."""
    total = 0
    for path in files_in(folder):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
