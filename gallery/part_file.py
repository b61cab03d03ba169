"""A file that is coming: its part, the journal beside it, and the room that it needs."""

import shutil
from pathlib import Path

from gallery.errors import InstallError
from gallery.journal import MAX_BYTES, Journal, decode, encode

SPARE_BYTES = 64 * 1024 * 1024
"""Of the disk, left for everybody else."""


def forget(part: Path) -> None:
    """Removes a partial file and its journal."""
    part.unlink(missing_ok=True)
    journal_path(part).unlink(missing_ok=True)


def check_disk(folder: Path, needed: int) -> None:
    """Raises InstallError where `needed` more bytes do not fit."""
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise InstallError(
            f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free in {folder}; make room there",
            code="disk_full",
        )


def size_of(path: Path) -> int:
    """-1 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def journal_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def read_journal(part: Path) -> Journal | None:
    """None if there is none, or a damaged one."""
    try:
        with journal_path(part).open("rb") as file:
            return decode(file.read(MAX_BYTES).decode("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def write_journal(part: Path, journal: Journal) -> None:
    """Replaces it whole."""
    path = journal_path(part)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(encode(journal), encoding="utf-8")
    temporary.replace(path)
