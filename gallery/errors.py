"""What can be wrong with a model before anything runs it.

* GalleryError
    * CardError      a card cannot be understood; the message names file, line and key
    * WeightsError   a file of weights is missing, damaged or cut short; the message names it
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
