"""Archives are foreign: their members cannot leave the folder, nor be anything but files."""

import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from gallery.archive import Member, check_member, unpack
from gallery.errors import InstallError

DATA = b"GGUF" + bytes(1000)


def zipped(path: Path, *names: str, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, DATA)
    return path


def tarred(path: Path, *items: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for item in items:
            item.size = len(DATA) if item.isreg() else 0
            archive.addfile(item, io.BytesIO(DATA) if item.isreg() else None)
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_the_models_of_an_archive_come_out_and_nothing_else(tmp_path: Path, kind: str) -> None:
    names = ("a/fish.gguf", "README.md", "run.sh")
    path = tmp_path / f"x.{kind}"
    archive = zipped(path, *names) if kind == "zip" else tarred(path, *map(tarfile.TarInfo, names))

    [file] = unpack(archive, tmp_path)

    assert (file.path, file.size) == (tmp_path / "fish.gguf", len(DATA))
    assert [p.name for p in tmp_path.iterdir()] == ["fish.gguf"]


def damaged(kind: str) -> bytes:
    """An archive of a model, with nonsense in the middle of its compressed data."""
    noise = random.Random(1).randbytes(100_000)
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("fish.gguf", noise)
    elif kind == "pax":
        item = tarfile.TarInfo("fish.gguf")
        item.size, item.pax_headers = 3, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(item, io.BytesIO(b"abc"))
        return out.getvalue()
    else:
        item = tarfile.TarInfo("fish.gguf")
        item.size = len(noise)
        with tarfile.open(fileobj=out, mode=f"w:{kind}") as tar:  # type: ignore[call-overload]
            tar.addfile(item, io.BytesIO(noise))
    whole = bytearray(out.getvalue())
    whole[20_000:60_000] = b"\xff" * 40_000
    return bytes(whole)


@pytest.mark.parametrize("kind", ["zip", "xz", "bz2", "pax"])
def test_a_damaged_archive_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x.zip" if kind == "zip" else "x.tar")
    path.write_bytes(damaged(kind))

    with pytest.raises(InstallError, match=r"\Ax\.(zip|tar) is no archive that can be read: [^\n]+\Z"):
        unpack(path, tmp_path)


def test_what_is_no_archive_at_all_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"<html>log in first</html>" * 100)

    with pytest.raises(InstallError, match=r"\Ax\.tar is no archive that can be read: [^\n]+\Z"):
        unpack(path, tmp_path)


@pytest.mark.parametrize(
    "name", ["../evil.gguf", "a/../../evil.gguf", "/tmp/evil.gguf", "..\\evil.gguf", "C:\\evil.gguf"]
)
def test_a_member_that_leaves_the_archive_refuses_it(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "models" / "fish"
    folder.mkdir(parents=True)

    with pytest.raises(InstallError, match="leaves the archive"):
        unpack(tarred(tmp_path / "x.tar.gz", tarfile.TarInfo(name)), folder)

    assert list(folder.iterdir()) == []
    with pytest.raises(InstallError):
        check_member(Member(name, 1, is_file=True, is_folder=False), "x.zip")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_a_device_refuses_the_archive(tmp_path: Path, kind: bytes) -> None:
    item = tarfile.TarInfo("fish.gguf")
    item.type = kind
    item.linkname = "/etc/passwd"

    with pytest.raises(InstallError, match="link or a device"):
        unpack(tarred(tmp_path / "x.tar.gz", item), tmp_path)


def test_a_link_in_a_zip_refuses_it_too(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="link or a device"):
        unpack(zipped(tmp_path / "x.zip", "fish.gguf", mode=stat.S_IFLNK | 0o777), tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"\x1f\x8b nonsense"])
@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_what_is_no_archive_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InstallError):
        unpack(tmp_path / name, tmp_path)


def test_an_archive_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="holds no"):
        unpack(zipped(tmp_path / "x.zip", "README.md"), tmp_path)
