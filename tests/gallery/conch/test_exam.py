"""conch's published list: complete, honest about what is held out, and graded strictly."""

import random
from collections import Counter

import numpy as np
import pytest

from gallery.conch.exam import load_exam, sound, word_errors
from gallery.conch.speaking import SAMPLE_RATE, Speaker, Voice
from gallery.conch.voices import (
    HELD_OUT_LANGUAGES,
    HELD_OUT_PITCHES,
    HELD_OUT_RATES,
    HELD_OUT_TIMBRES,
    lesson_voice,
)
from gallery.conch.words import WORDS


def is_within(value: int, bands: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= value <= high for low, high in bands)


def test_there_are_enough_questions_of_every_kind() -> None:
    questions = load_exam()

    assert len({q.id for q in questions}) == len(questions)
    assert min(Counter(q.category for q in questions).values()) >= 5
    assert sum(len(q.words) for q in questions if q.held_out) >= 400


def test_every_word_is_asked_for_in_held_out_voices() -> None:
    asked = {word for q in load_exam() if q.held_out for word in q.words}

    assert asked == set(WORDS)


def test_held_out_voices_are_in_no_lesson() -> None:
    for q in load_exam():
        if q.held_out and q.voice is not None:
            assert q.voice.language in HELD_OUT_LANGUAGES or q.voice.timbre in HELD_OUT_TIMBRES, q.id
            assert is_within(q.voice.rate, HELD_OUT_RATES), q.id
            assert is_within(q.voice.pitch, HELD_OUT_PITCHES), q.id


def test_lessons_are_spoken_by_no_held_out_voice() -> None:
    rng = random.Random(1)
    usual = Voice(language="")
    for _ in range(2000):
        voice = lesson_voice(rng)
        assert voice.language not in HELD_OUT_LANGUAGES
        assert voice.timbre not in HELD_OUT_TIMBRES
        assert voice.rate == usual.rate or not is_within(voice.rate, HELD_OUT_RATES)
        assert voice.pitch == usual.pitch or not is_within(voice.pitch, HELD_OUT_PITCHES)


@pytest.mark.parametrize(
    ("heard", "errors"),
    [
        (" one two three", 0),
        ("One, two. Three!", 0),
        ("one three", 1),
        ("one two two three", 1),
        ("one too three", 1),
        ("three two one", 2),
        ("", 3),
    ],
)
def test_every_word_missing_wrong_or_added_is_an_error(heard: str, errors: int) -> None:
    assert word_errors(["one", "two", "three"], heard) == errors


def test_words_out_of_silence_are_errors() -> None:
    assert word_errors([], " one") == 1


def test_the_sound_is_the_same_every_time() -> None:
    question = next(q for q in load_exam() if q.category == "noisy")

    def made() -> bytes:
        with Speaker() as speaker:
            return sound(question, speaker).tobytes()

    assert made() == made()


def test_a_clip_knows_when_each_word_begins() -> None:
    with Speaker() as speaker:
        clip = speaker.say("seven, one", Voice(language="gmw/en-US"))

    begin, second = clip.begins
    assert begin == 0
    before = clip.samples[round((second - 0.15) * SAMPLE_RATE) : round((second - 0.05) * SAMPLE_RATE)]
    after = clip.samples[round((second + 0.05) * SAMPLE_RATE) : round((second + 0.15) * SAMPLE_RATE)]
    assert np.abs(before).max() < 0.1 * np.abs(after).max()
