"""Pictures that were asked for as addresses: files of this node, for a while, under names nobody can guess.

Whoever has the name may fetch the picture, without a key: browsers and image viewers have none. A name has 192 random
bits and is given to the client that asked, nobody else.

Rules:

1. A picture is kept for `seconds`, and all of them take at most `most_bytes`: the oldest go first.
2. Nothing of an earlier run is kept: names die with the node.
"""

import asyncio
import contextlib
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from api.errors import NotFoundError, UnavailableError

SECONDS = 3600.0
MOST_BYTES = 1024 * 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9_-]{32}\.(png|jpeg|webp)")


@dataclass(frozen=True, slots=True)
class _Kept:
    size: int
    until: float


class KeptPictures:
    """The pictures of one node. Lives in one event loop."""

    def __init__(self, folder: Path | None = None, *, seconds: float = SECONDS, most_bytes: int = MOST_BYTES) -> None:
        """Without a `folder`, a temporary one is made when the first picture comes."""
        self._folder = folder
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._kept: dict[str, _Kept] = {}
        """By name, the oldest first."""

    async def start(self) -> None:
        """Removes the pictures of an earlier run, which nobody has a name for any more."""
        await asyncio.to_thread(self._clear)

    async def keep(self, data: bytes, kind: str) -> str:
        """The name of a picture that is kept from now on. `kind`: "png", "jpeg" or "webp".

        Raises:
            UnavailableError: it cannot be written.
        """
        now = asyncio.get_running_loop().time()
        self._forget(now, room_for=len(data))
        name = f"{secrets.token_urlsafe(24)}.{kind}"
        self._kept[name] = _Kept(len(data), now + self._seconds)
        try:
            await asyncio.to_thread(self._write, name, data)
        except OSError as error:
            self._kept.pop(name, None)
            raise UnavailableError(f"The picture cannot be kept on this node: {error.strerror or error}.") from error
        return name

    async def read(self, name: str) -> bytes:
        """The picture of that name.

        Raises:
            NotFoundError: there is none, or no more.
        """
        self._forget(asyncio.get_running_loop().time())
        if _NAME.fullmatch(name) and name in self._kept and self._folder is not None:
            try:
                return await asyncio.to_thread((self._folder / name).read_bytes)
            except OSError:
                pass
        raise NotFoundError(f"There is no such picture here; pictures are kept for {self._seconds / 60:.0f} minutes.")

    async def aclose(self) -> None:
        """Forgets all of them."""
        self._kept.clear()
        await asyncio.to_thread(self._clear)

    def _forget(self, now: float, *, room_for: int = 0) -> None:
        size = sum(kept.size for kept in self._kept.values()) + room_for
        for name, kept in list(self._kept.items()):
            if kept.until > now and size <= self._most_bytes:
                return
            size -= kept.size
            del self._kept[name]
            if self._folder is not None:
                (self._folder / name).unlink(missing_ok=True)

    def _clear(self) -> None:
        """Removes the folder. A file that is no picture of ours stays, and the folder with it."""
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if _NAME.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            self._folder.rmdir()

    def _write(self, name: str, data: bytes) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="shoal-pictures-"))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / name
        try:
            path.write_bytes(data)
        except OSError:
            path.unlink(missing_ok=True)  # A full disk must not keep the half of it, which nobody would find again.
            raise
