"""The published list of what conch must hear, how its sound is made, and how what was heard is graded.

`exam.yaml` is the list. Nothing here runs a model; take the sound to one and bring back what it wrote:

    with Speaker() as speaker:
        for question in load_exam():
            wrong = word_errors(question.words, transcribe_somehow(sound(question, speaker)))

`held_out` questions are spoken by a voice, at a speed and at a pitch that no lesson has (`voices.py`).
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from gallery.conch.speaking import SAMPLE_RATE, Samples, Speaker, Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A sound, and what is said in it."""

    id: str
    category: str
    held_out: bool
    say: tuple[str, ...]
    """What is said, a pause after each; nothing in silence."""
    voice: Voice | None
    pause: float
    """Seconds before, between and after what is said."""
    volume: float
    """Decibels; 0 is as loud as a file can be."""
    noise: float | None
    """Loudness of white noise in decibels."""

    @property
    def words(self) -> list[str]:
        """What should be written."""
        return _words(" ".join(self.say))


@cache
def load_exam() -> list[Question]:
    """The whole list, in order."""
    text = (files("gallery.conch") / "exam.yaml").read_text(encoding="utf-8")
    return [_question(entry) for entry in yaml.safe_load(text)["questions"]]


def sound(question: Question, speaker: Speaker) -> Samples:
    """Samples at `SAMPLE_RATE`; the same every time."""
    silence = np.zeros(round(question.pause * SAMPLE_RATE), np.float32)
    parts = [silence]
    for text in question.say:
        assert question.voice is not None
        parts += [speaker.say(text, question.voice).samples, silence]
    samples = np.concatenate(parts)
    samples *= 10 ** (question.volume / 20) / max(1e-9, float(np.abs(samples).max()))
    if question.noise is not None:
        noise = np.random.default_rng(len(samples)).standard_normal(len(samples)) * 10 ** (question.noise / 20)
        samples += noise.astype(np.float32)
    return samples.clip(-1, 1)


def word_errors(said: list[str], heard: str) -> int:
    """Words that are missing, wrong or too many: the edit distance."""
    row = list(range(len(said) + 1))
    for count, word in enumerate(_words(heard), start=1):
        before, row[0] = row[0], count
        for index, right in enumerate(said, start=1):
            before, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, before + (word != right))
    return row[-1]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _question(entry: dict[str, Any]) -> Question:
    voice = entry.get("voice")
    return Question(
        id=entry["id"],
        category=entry["category"],
        held_out=entry.get("held_out", False),
        say=tuple(entry.get("say", ())),
        voice=None if voice is None else Voice(**voice),
        pause=entry.get("pause", 0.3),
        volume=entry.get("volume", -3),
        noise=entry.get("noise"),
    )
