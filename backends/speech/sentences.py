"""Text cut into pieces that can be spoken one after the other, so that the first is heard early. Pure."""

import re
from collections.abc import Iterator

LONGEST = 400
"""Characters of one piece. A longer sentence is cut at a comma or a space: its first sound must not wait for all of
it, and a cancelled call ends with the piece that is being spoken."""

_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n\s*\n|(?<=[:;])\n")  # noqa: RUF001
_CUTS = (re.compile(r"[,;:–—]\s"), re.compile(r"\s"))  # noqa: RUF001
_SOUND = re.compile(r"\w")


def sentences(text: str, longest: int = LONGEST) -> Iterator[str]:
    """The pieces of `text`, in order; pieces without a letter or digit are left out."""
    begin = 0
    for end in [*(match.end() for match in _END.finditer(text)), len(text)]:
        yield from (piece for piece in _cut(text[begin:end].strip(), longest) if _SOUND.search(piece))
        begin = end


def _cut(sentence: str, longest: int) -> Iterator[str]:
    while len(sentence) > longest:
        at = _last_cut(sentence[:longest]) or longest
        yield sentence[:at].strip()
        sentence = sentence[at:].strip()
    yield sentence


def _last_cut(text: str) -> int:
    for cut in _CUTS:
        ends = [match.end() for match in cut.finditer(text)]
        if ends and ends[-1] > len(text) // 4:
            return ends[-1]
    return 0
