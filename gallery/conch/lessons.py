"""What is heard in training, and what should be written: clips one after the other, in rooms and noise, by a seed."""

import random
from dataclasses import dataclass, field

import numpy as np

from gallery.conch.speaking import SAMPLE_RATE, Clip, Samples
from gallery.conch.tokenizer import special, stamp_id, word_id
from gallery.conch.words import CHUNK_SECONDS, WORDS

SILENT = 0.08
"""Part of the lessons in which nobody speaks: nothing should be written."""
CUT = 0.3
"""Part of the chances for a full lesson whose last phrase does not end in it: of that only the whole words are written,
and when the rest begins, to be heard again."""
STAMPED = 0.5
"""Part of the lessons written with times."""
REMINDED = 0.25
"""Part of the lessons that begin with what was said before."""

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One sound and its tokens."""

    samples: Samples
    tokens: list[int]
    learnt_from: int
    """The first token that is to be learnt; those before are given."""
    spans: dict[int, Span] = field(default_factory=dict)
    """Where in the sound the token at this index is heard, in seconds."""


def lesson(rng: random.Random, clips: list[Clip], longest: float) -> Lesson:
    """A sound of up to `longest` seconds."""
    if rng.random() < SILENT:
        return _silence(rng, longest)
    placed, seconds, is_cut = _placed(rng, clips, longest)
    samples = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for at, clip in placed:
        begin = round(at * SAMPLE_RATE)
        room = samples[begin : begin + len(clip.samples)]
        room += clip.samples[: len(room)] * _gain(rng, -5, 5)
    return _written(rng, _recorded(rng, samples), placed, is_cut)


def _placed(rng: random.Random, clips: list[Clip], longest: float) -> tuple[list[tuple[float, Clip]], float, bool]:
    """Clips and when they begin; the length of it all; whether the last one is cut off."""
    at = rng.choice((rng.uniform(0, 0.1), rng.uniform(0, 1), rng.uniform(0, 0.3 * longest)))
    placed: list[tuple[float, Clip]] = []
    for clip in rng.sample(clips, min(len(clips), rng.randint(1, 8))):
        if at + clip.seconds > longest:
            if longest == CHUNK_SECONDS and at < longest - 0.3 and rng.random() < CUT:
                return [*placed, (at, clip)], longest, True
            continue
        placed.append((at, clip))
        at += clip.seconds + rng.choice((rng.uniform(0.25, 0.8), rng.uniform(0.4, 2.0)))
    if not placed:
        return _placed(rng, clips, longest)
    last, clip = placed[-1]
    end = last + clip.seconds + rng.choice((rng.uniform(0, 0.2), rng.uniform(0, 1.5)))
    return placed, min(end, longest), False


def _written(rng: random.Random, samples: Samples, placed: list[tuple[float, Clip]], is_cut: bool) -> Lesson:
    # Without times what is cut cannot be left for the next window, so it should be rare there.
    stamped = is_cut or rng.random() < STAMPED
    tokens = _reminder(rng, stamped) if rng.random() < REMINDED else []
    learnt_from = len(tokens) + 1
    tokens.append(special("<|startoftranscript|>"))
    if not stamped:
        learnt_from += 1
        tokens.append(special("<|notimestamps|>"))
    spans: dict[int, Span] = {}
    for index, (at, clip) in enumerate(placed):
        if stamped:
            spans[len(tokens)] = (at - 0.1, at + 0.1)
            tokens.append(stamp_id(at))
        ends = [*clip.begins[1:], clip.seconds]
        heard = len(ends)
        if is_cut and index == len(placed) - 1:
            heard = sum(at + end < CHUNK_SECONDS - 0.05 for end in ends)
        for word, begin, end in zip(clip.words[:heard], clip.begins, ends, strict=False):
            spans[len(tokens)] = (at + begin, at + end)
            tokens.append(word_id(word))
        if stamped and heard:
            end = at + ends[heard - 1]
            # Twice where more follows: the time at which to go on.
            for _ in range(1 if heard == len(ends) else 2):
                spans[len(tokens)] = (end - 0.1, end + 0.1)
                tokens.append(stamp_id(min(end, len(samples) / SAMPLE_RATE)))
    tokens.append(special("<|endoftext|>"))
    return Lesson(samples, tokens, learnt_from, spans)


def _reminder(rng: random.Random, stamped: bool) -> list[int]:
    tokens = [special("<|startofprev|>")]
    at = 0.0
    for _ in range(rng.randint(1, 4)):
        if stamped:
            tokens.append(stamp_id(min(at, CHUNK_SECONDS)))
        tokens += [word_id(word) for word in rng.choices(WORDS, k=rng.randint(1, 6))]
        at = min(CHUNK_SECONDS, at + rng.uniform(0.5, 3))
        if stamped:
            tokens.append(stamp_id(at))
    return tokens


def _silence(rng: random.Random, longest: float) -> Lesson:
    samples = np.zeros(round(rng.uniform(0.3, longest) * SAMPLE_RATE), np.float32)
    kind = rng.choice(("nothing", "noise", "noise", "tones", "knocks"))
    if kind == "noise":
        samples += _noise(rng, len(samples)) * _gain(rng, -70, -5)
    elif kind == "tones":
        times = np.arange(len(samples), dtype=np.float32) / SAMPLE_RATE
        for _ in range(rng.randint(1, 4)):
            tone = np.sin(2 * np.pi * rng.uniform(50, 3000) * times) * _gain(rng, -40, -10)
            samples += (tone * (np.sin(2 * np.pi * rng.uniform(0.2, 3) * times) > rng.uniform(-1, 1))).astype(
                np.float32
            )
    elif kind == "knocks":
        samples += _noise(rng, len(samples)) * _gain(rng, -70, -40)
        for _ in range(rng.randint(1, 6)):
            begin = rng.randrange(len(samples))
            knock = _noise(rng, round(rng.uniform(0.005, 0.15) * SAMPLE_RATE))
            knock *= np.exp(-np.arange(len(knock)) / (len(knock) / 5)).astype(np.float32) * _gain(rng, -30, 0)
            room = samples[begin : begin + len(knock)]
            room += knock[: len(room)]
    start = special("<|startoftranscript|>")
    first = stamp_id(0) if rng.random() < STAMPED else special("<|notimestamps|>")
    # What follows the start is learnt too: whether there is speech at all is read from there.
    return Lesson(samples, [start, first, special("<|endoftext|>")], 2)


def _recorded(rng: random.Random, samples: Samples) -> Samples:
    """The same in a room, through a microphone, with noise, at some volume."""
    if rng.random() < 0.25:
        samples = _echoing(rng, samples)
    loudest = float(np.abs(samples).max()) or 1.0
    samples = samples / loudest
    if rng.random() < 0.3:
        samples = _coloured(rng, samples)
    if rng.random() < 0.6:
        samples = samples + _noise(rng, len(samples)) * _gain(rng, -55, -14)
    return (samples * _gain(rng, -25, 0)).astype(np.float32)


def _echoing(rng: random.Random, samples: Samples) -> Samples:
    length = round(rng.uniform(0.03, 0.3) * SAMPLE_RATE)
    tail = np.random.default_rng(rng.getrandbits(32)).standard_normal(length)
    tail *= np.exp(-6 * np.arange(length) / length) * rng.uniform(0.02, 0.12)
    tail[0] = 1
    size = 1 << (len(samples) + length).bit_length()
    heard = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)
    return heard[: len(samples)].astype(np.float32)


def _coloured(rng: random.Random, samples: Samples) -> Samples:
    """Bass and treble turned up or down, as by a poor microphone."""
    size = 1 << len(samples).bit_length()
    spectrum = np.fft.rfft(samples, size)
    frequencies = np.linspace(0, SAMPLE_RATE / 2, len(spectrum))
    knots = (0, 200, 600, 1500, 3000, 8000)
    decibels = np.interp(frequencies, knots, [rng.uniform(-9, 9) for _ in knots])
    return np.fft.irfft(spectrum * 10 ** (decibels / 20), size)[: len(samples)].astype(np.float32)


def _noise(rng: random.Random, length: int) -> Samples:
    """Noise of about unit loudness, white to brown."""
    size = 1 << max(1, length).bit_length()
    spectrum = np.fft.rfft(np.random.default_rng(rng.getrandbits(32)).standard_normal(size))
    spectrum *= np.maximum(np.linspace(0, 1, len(spectrum)), 0.005) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, size)[:length]
    return np.asarray(noise / (noise.std() + 1e-9) / 3, np.float32)


def _gain(rng: random.Random, low: float, high: float) -> float:
    """A factor between these two, which are decibels."""
    return float(10 ** (rng.uniform(low, high) / 20))
