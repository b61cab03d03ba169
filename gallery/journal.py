"""What a partial file holds, written beside it, so that a download goes on after a crash. Pure.

A journal may promise bytes that a power cut took: the file's sha256 decides in the end, and a resumed file whose
digest is wrong is fetched anew once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gallery.download_plan import Range, merged

VERSION = 1
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """Which file it is, and which of its bytes are there."""

    size: int
    sha256: str | None
    """As the source promised it; None where it promises none."""
    validator: str | None
    """The server's strong ETag or its Last-Modified."""
    url: str
    done: Sequence[Range] = ()

    def continues(self, other: "Journal") -> bool:
        """Whether what is there are bytes of the file that `other` describes."""
        if self.size != other.size:
            return False
        if self.sha256 or other.sha256:
            return self.sha256 == other.sha256
        return self.url == other.url and self.validator is not None and self.validator == other.validator


def encode(journal: Journal) -> str:
    """As text for the file."""
    return json.dumps(
        {
            "version": VERSION,
            "size": journal.size,
            "sha256": journal.sha256,
            "validator": journal.validator,
            "url": journal.url,
            "done": [[part.start, part.end] for part in journal.done],
        }
    )


def decode(text: str) -> Journal | None:
    """The journal in `text`; None if it is none, which only means to begin anew."""
    try:
        raw = json.loads(text)
        if raw["version"] != VERSION:
            return None
        size = raw["size"]
        texts = (raw["sha256"], raw["validator"])
        if not isinstance(size, int) or size < 0 or not all(t is None or isinstance(t, str) for t in texts):
            return None
        done = merged((Range(int(start), int(end)) for start, end in raw["done"]), size)
        return Journal(size=size, sha256=texts[0], validator=texts[1], url=str(raw["url"]), done=done)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
