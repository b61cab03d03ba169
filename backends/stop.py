"""Stop strings across token borders: text is held back while it may be the start of a stop string.

    filter = StopFilter(["END"])
    filter.feed("to be E")   ->  "to be "        "E" may become "END"
    filter.feed("at")        ->  "Eat"           it did not
    filter.feed("END x")     ->  ""              filter.stopped

The stop string itself never comes out, and nothing after it.
"""

from collections.abc import Sequence


class StopFilter:
    """Passes text on until one of the stop strings is complete."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False
        """A stop string was met; nothing comes out any more."""

    def feed(self, text: str) -> str:
        """What of the text so far is safe to show now."""
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            # The one that is complete first counts, however the text was cut into pieces.
            self.stopped = True
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        keep = self._undecided()
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def flush(self) -> str:
        """The answer is over: what was held back is text after all."""
        shown, self._held = self._held, ""
        return shown

    def _undecided(self) -> int:
        """How many characters at the end could be the start of a stop string."""
        longest = max(len(stop) for stop in self._stops) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-size:]
            if any(stop.startswith(tail) for stop in self._stops):
                return size
        return 0
