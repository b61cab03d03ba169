"""Guessing tokens ahead, so that one step may give several: what to guess, and whether it pays. No model.

    guess -> fed together with the stream's last token -> each position is drawn as always
          -> guesses count up to the first that was drawn otherwise; the rest is forgotten

Since every token is drawn by the request's own sampler from the model's own logits, guesses change how fast an
answer comes and never what it says.
"""

from array import array
from collections.abc import Sequence

from backends.speed import RecentMean

MOST_IN_STEP = 64
"""Guesses in one step, over all streams."""

NGRAMS = (4, 3, 2)
"""How many of the last tokens must have been there before, longest first."""

WINDOW = 32_768
"""Tokens looked back."""

PROBE_EVERY = 32
"""Of the steps in which guessing would not pay, by what is known, one tries all the same: what is known may be old."""

FIRST_RATE = 0.7
"""Share of guesses taken to come true before any is known."""

_SIZE = 4
_BORDER = -1


class PromptLookup:
    """What came next the last time the text said what it says now.

    Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding), as in transformers'
    `prompt_lookup_num_tokens` and llama.cpp's `lookup`: answers that repeat their prompt are guessed well.
    """

    def __init__(self, prompt: Sequence[int], prediction: Sequence[int] = ()) -> None:
        """`prediction` is what the caller expects the answer to be: found as if it had followed the prompt before."""
        seed = [*prompt[-NGRAMS[0] :], *prediction, _BORDER] if prediction else []
        self._text = bytearray(array("i", seed).tobytes())
        self._seeded = len(seed)

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow `tokens`, which grow from call to call, or were cut."""
        known = len(self._text) // _SIZE - self._seeded
        if known > len(tokens):  # Its context was shifted.
            known = 0
            del self._text[self._seeded * _SIZE :]
        self._text += array("i", tokens[known:]).tobytes()
        for size in NGRAMS:
            if len(tokens) >= size and (start := self._find(size)) is not None:
                return self._after(start, most)
        return []

    def _find(self, size: int) -> int | None:
        """Where it goes on after the last place that reads like the end, in bytes."""
        end = len(self._text) - _SIZE  # At least one token must follow.
        pattern = bytes(self._text[-size * _SIZE :])
        while (at := self._text.rfind(pattern, max(0, end - WINDOW * _SIZE), end)) >= 0:
            if at % _SIZE == 0:
                return at + len(pattern)
            end = at + len(pattern) - 1
        return None

    def _after(self, start: int, most: int) -> list[int]:
        following = array("i", bytes(self._text[start : start + most * _SIZE])).tolist()
        if _BORDER in following:
            return following[: following.index(_BORDER)]
        # Shorter than asked for, it reaches the end: what repeats after so many tokens may go on repeating.
        return [following[index % len(following)] for index in range(most)]


class Record:
    """How well one stream was guessed lately."""

    def __init__(self) -> None:
        self.rate = FIRST_RATE
        """Share of guesses that come true."""

    def note(self, guessed: int, came_true: int) -> None:
        """Of so many guesses, these came true; the first that did not hides those after it."""
        for index in range(min(guessed, came_true + 1)):
            self.rate += ((index < came_true) - self.rate) / 8


class Pace:
    """How many tokens to guess, by what steps of different sizes took and how often guesses came true."""

    def __init__(self) -> None:
        self._steps: dict[int, tuple[RecentMean, RecentMean]] = {}
        """Tokens and seconds of steps, by the power of two that the tokens reach."""
        self._idle_steps = 0

    def measured(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens, no prompt among them, took so long."""
        sizes, times = self._steps.setdefault(tokens.bit_length(), (RecentMean(), RecentMean()))
        sizes.add(tokens)
        times.add(seconds)

    def choose(self, rates: Sequence[float], most: Sequence[int], each: float = 0.0, streams: int = 0) -> int:
        """How many tokens to guess at most for each stream.

        `rates` and `most` are those of the streams that can be guessed: how often guesses come true, and how many
        there are. `streams` run in all. `each` are the seconds that a further guess costs by itself, for all of them.
        """
        best, best_speed = 0, 0.0
        streams = max(streams, len(rates))
        for count in _counts(max(most, default=0)):
            lengths = [min(count, length) for length in most]
            gain = sum(map(expected, rates, lengths)) + streams - len(rates)
            seconds = self._cost(streams + sum(lengths)) + each * count
            if not seconds:
                best = count  # Nothing is known yet: try.
            elif gain / seconds > best_speed:
                best, best_speed = count, gain / seconds
        if best or not rates:
            self._idle_steps = 0
            return best
        self._idle_steps = (self._idle_steps + 1) % PROBE_EVERY
        return 0 if self._idle_steps else min(4, max(most))

    def _cost(self, tokens: int) -> float:
        """Seconds of a step, by the steps that were smaller and larger. What is larger than any that was
        tried is taken to cost no more, so that it is tried; 0 where nothing is known."""
        known = sorted((sizes.value, times.value) for sizes, times in self._steps.values())
        below = [point for point in known if point[0] <= tokens]
        above = [point for point in known if point[0] > tokens]
        if not below or not above:
            return max((seconds for _, seconds in below or above[:1]), default=0.0)
        (low, least), (high, most) = below[-1], above[0]
        return least + (most - least) * (tokens - low) / (high - low)


def expected(rate: float, guesses: int) -> float:
    """Tokens that a step gives: the one drawn in any case, and guesses up to the first that fails."""
    if rate >= 1:
        return 1.0 + guesses
    return float((1 - rate ** (guesses + 1)) / (1 - rate))


def _counts(most: int) -> list[int]:
    return sorted({0, most, *(2**bits for bits in range(most.bit_length()))})
