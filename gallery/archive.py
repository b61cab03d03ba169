"""Takes the models out of an archive, and nothing else.

Members are foreign: one whose path leaves the archive, or that is a link or a device, refuses the whole archive. What
is unpacked gets the last part of its path as its name, right in the model's folder, and no more bytes than it declared.
"""

import hashlib
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from gallery.download import Fetched
from gallery.errors import InstallError
from gallery.part_file import check_disk
from gallery.source import file_name

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_MEMBERS = 10_000
BLOCK_BYTES = 1024 * 1024

_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
)
"""What Python's readers raise about bytes that make no sense; and `OSError` without a number, from gzip and bz2."""


@dataclass(frozen=True, slots=True)
class Member:
    """What an archive says about one of its files."""

    path: str
    size: int
    is_file: bool
    is_folder: bool


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def check_member(member: Member, archive: str) -> None:
    """Raises InstallError for a member that no honest archive of models has."""
    parts = PurePosixPath(member.path.replace("\\", "/")).parts
    if not parts or ".." in parts or member.path.startswith(("/", "\\")) or ":" in parts[0]:
        raise InstallError(f"{archive}: its member {member.path[:100]!r} leaves the archive; refused", code="unsafe")
    if not (member.is_file or member.is_folder):
        raise InstallError(f"{archive}: its member {member.path[:100]!r} is a link or a device; refused", code="unsafe")


def unpack(archive: Path, folder: Path) -> list[Fetched]:
    """Puts the .gguf files of `archive` into `folder`, and removes the archive.

    Raises:
        InstallError: it is damaged, holds no model, or something that leads elsewhere.
    """
    # By where each waits until all of the archive has been looked at.
    found: dict[Path, Fetched] = {}
    try:
        with closing(_members(archive)) as members:
            for number, (member, data) in enumerate(members):
                if number >= MAX_MEMBERS:
                    raise InstallError(f"{archive.name} has more than {MAX_MEMBERS} members", code="unsafe")
                check_member(member, archive.name)
                if member.is_file and data is not None and member.path.lower().endswith(".gguf"):
                    check_disk(folder, member.size)
                    part, file = _write(member, data, folder, archive.name)
                    found[part] = file
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # The disk's fault.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InstallError(f"{archive.name} is no archive that can be read: {reason}", code="unsupported") from error
    if not found:
        raise InstallError(f"{archive.name} holds no .gguf file", code="no_variant")
    for part, file in found.items():
        part.replace(file.path)
    archive.unlink()
    return sorted(found.values(), key=lambda file: file.path)


def _members(archive: Path) -> Generator[tuple[Member, IO[bytes] | None], None, None]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as whole:
            for info in whole.infolist():
                is_file = not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                member = Member(info.filename, info.file_size, is_file, info.is_dir())
                yield member, whole.open(info) if is_file else None
        return
    with tarfile.open(archive) as tar:
        for item in tar:
            member = Member(item.name, item.size, item.isreg(), item.isdir())
            yield member, tar.extractfile(item) if item.isreg() else None


def _write(member: Member, data: IO[bytes], folder: Path, archive: str) -> tuple[Path, Fetched]:
    path = folder / file_name(member.path)
    part = path.with_name(f"{path.name}.part")
    sha = hashlib.sha256()
    size = 0
    with data, part.open("wb") as file:
        while block := data.read(BLOCK_BYTES):
            size += len(block)
            if size > member.size:
                raise InstallError(f"{archive}: {path.name} is larger than the archive says", code="unsafe")
            file.write(block)
            sha.update(block)
    return part, Fetched(path, size, sha.hexdigest())
