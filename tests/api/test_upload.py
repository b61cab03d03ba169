"""Forms as they arrive: whatever the pieces, the same fields and files, and nothing left behind."""

import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import ApiError, InvalidRequestError, UnavailableError
from api.upload import MOST_FILES, Spool, boundary_of, read_form

BOUNDARY = b"limit"


def form(*parts: tuple[str, str | None, bytes], end: bytes = b"--limit--\r\n") -> bytes:
    """A body with fields and files: name, file's name or None, and what is in it."""
    written = b""
    for name, filename, data in parts:
        named = f'name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
        written += b"--limit\r\nContent-Disposition: form-data; " + named.encode() + b"\r\n\r\n" + data + b"\r\n"
    return written + end


async def arriving(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 10**7])
async def test_a_form_is_the_same_however_it_arrives(size: int) -> None:
    file = bytes(range(256)) * 40 + b"\r\n--limi" + b"\r\n\r\n"
    body = form(
        ("model", None, b"whisper"), ("file", "a\u00e4.wav", file), ("tag[]", None, b"1"), ("tag[]", None, b"2")
    )
    spool = Spool(None, 10**6)

    async with read_form(arriving(cut(body, size)), BOUNDARY, spool) as found:
        assert found.text("model") == "whisper"
        assert found.list("tag") == ["1", "2"]
        [upload] = found.uploads("file")
        assert (upload.name, upload.size, await upload.read()) == ("a\u00e4.wav", len(file), file)
        assert await upload.read() == file
        assert spool.used == len(file)

    assert spool.used == 0


async def test_a_large_file_is_read_in_pieces() -> None:
    data = os.urandom(3_000_000)

    async with read_form(arriving(cut(form(("file", "f", data)), 65536)), BOUNDARY, Spool(None, 10**7)) as found:
        pieces = [piece async for piece in found.files[0].pieces()]

    assert b"".join(pieces) == data
    assert max(map(len, pieces)) == 256 * 1024


async def test_a_form_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**7)
    body = form(("file", "f", b"x" * 2_000_000))[:1_500_000]

    with pytest.raises(InvalidRequestError, match="breaks off"):
        async with read_form(arriving(cut(body, 65536)), BOUNDARY, spool):
            pass

    assert (spool.used, os.listdir(tmp_path)) == (0, [])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"hello", "cannot be read", id="no form"),
        pytest.param(b"--limit\r\nX: y\r\n\r\nz\r\n--limit--\r\n", "without a name", id="a part without a name"),
        pytest.param(form(("", None, b"x")), "without a name", id="an empty name"),
        pytest.param(form(("a", None, b"\xff\xfe")), "no text", id="a field that is no text"),
        pytest.param(form(("a", None, b"x" * 1_100_000)), "more than 1048576 bytes", id="a field without end"),
        pytest.param(form(*[("a", None, b"")] * 300), "more than 256 parts", id="too many parts"),
        pytest.param(b"--limit\r\n" + b"x" * 300_000, "cannot be read", id="a head without end"),
    ],
)
async def test_what_is_no_form_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        async with read_form(arriving(cut(body, 50_000)), BOUNDARY, Spool(None, 10**7)):
            pass


@given(st.lists(st.sampled_from([b"--limit", b"--limit--", b"\r\n", b"\n", b'Content-Disposition: form-data; name="a"',
                                 b'; filename="f"', b"x", b"\xff", b":", b"\r\n\r\n"]), max_size=30))  # fmt: skip
async def test_no_bytes_do_more_than_be_refused(pieces: list[bytes]) -> None:
    spool = Spool(None, 10**6)
    try:
        async with read_form(arriving(pieces), BOUNDARY, spool):
            pass
    except ApiError:
        pass

    assert spool.used == 0


async def test_a_disk_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no room on its disk"):
        async with read_form(arriving([form(("file", "f", b"x"))]), BOUNDARY, Spool(tmp_path / "gone", 100)):
            pass


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; boundary="a b"', b"a b"),
        ("multipart/form-data", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_the_boundary_of_a_form(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary


async def test_a_form_opens_only_so_many_files(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**6)
    body = form(*[("file", "f", b"x")] * (MOST_FILES + 1))

    with pytest.raises(InvalidRequestError, match=f"more than {MOST_FILES} files"):
        async with read_form(arriving([body]), BOUNDARY, spool):
            pass

    assert spool.used == 0
