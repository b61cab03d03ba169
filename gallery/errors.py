"""What can be wrong with a model before anything runs it.

* GalleryError
    * CardError      a card cannot be understood; the message names file, line and key
    * WeightsError   a file of weights is missing, damaged or cut short; the message names it
    * SourceError    what should be installed is not said in a way that can be understood
    * InstallError   it cannot be fetched or must not be; `code` says which kind of trouble it is
    * EngineMissingError   what runs it is not installed here; the message says how to
"""

from pathlib import Path


class GalleryError(Exception):
    """Base of every error this package raises on purpose."""


class CardError(GalleryError):
    """A card cannot be understood."""

    def __init__(self, path: Path, reason: str, line: int | None = None) -> None:
        where = f"{path}:{line}" if line is not None else str(path)
        super().__init__(f"{where}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class WeightsError(GalleryError):
    """A file of weights cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class SourceError(GalleryError):
    """This names no place that a model can come from."""


class InstallError(GalleryError):
    """A model cannot be installed; the message is one line for people.

    `code` is for programs: unauthorized, not_found, rate_limited, server_error, unreachable, unsafe, changed, corrupt,
    disk_full, no_variant, unsupported.
    """

    def __init__(self, message: str, *, code: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        """Seconds that the server wants us to wait."""

    @property
    def may_pass(self) -> bool:
        """Trying again may help."""
        return self.code in ("rate_limited", "server_error", "unreachable")


class EngineMissingError(GalleryError):
    """An engine cannot run on this node until its packages are installed."""

    def __init__(self, engine: str, problem: str, node: str = "") -> None:
        where = f"on {node}" if node else "here"
        command = f"shoal engines install {engine}" + (f" --node {node}" if node else "")
        super().__init__(
            f"it needs the engine {engine}, which cannot run {where} ({problem}); install that with: {command}"
        )
        self.engine = engine
