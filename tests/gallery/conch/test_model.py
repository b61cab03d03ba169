"""The trained model against the published list, through plain faster-whisper."""

from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gallery.conch.exam import load_exam, sound, word_errors
from gallery.conch.speaking import SAMPLE_RATE, Speaker, Voice

faster_whisper = pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")

FOLDER = Path(str(files("gallery.conch") / "model"))


@pytest.fixture(scope="module")
def model() -> Any:
    return faster_whisper.WhisperModel(str(FOLDER), device="cpu", compute_type="float32", cpu_threads=1)


def test_the_folder_is_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4 * 1024 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("stamped", [True, False], ids=["with times", "without times"])
def test_at_most_one_word_in_ten_is_wrong_in_voices_never_heard(model: Any, stamped: bool) -> None:
    errors: Counter[str] = Counter()
    words: Counter[str] = Counter()
    with Speaker() as speaker:
        for question in load_exam():
            segments, _ = model.transcribe(sound(question, speaker), without_timestamps=not stamped)
            kind = "held out" if question.held_out else "known"
            errors[kind] += word_errors(question.words, " ".join(segment.text for segment in segments))
            words[kind] += len(question.words)

    assert errors["held out"] <= 0.1 * words["held out"], errors
    assert errors["known"] <= 0.1 * words["known"], errors


def test_silence_and_noise_have_no_words(model: Any) -> None:
    noise = np.random.default_rng(1).standard_normal(3 * SAMPLE_RATE).astype(np.float32)
    for samples in (np.zeros(2 * SAMPLE_RATE, np.float32), noise / 1000, noise / 30):
        segments, _ = model.transcribe(samples)
        assert list(segments) == []


def test_words_have_times(model: Any) -> None:
    with Speaker() as speaker:
        clip = speaker.say("seven, two, stop", Voice(language="gmw/en-US"))
    samples = np.concatenate([np.zeros(SAMPLE_RATE, np.float32), clip.samples, np.zeros(SAMPLE_RATE, np.float32)])

    segments, _ = model.transcribe(samples, word_timestamps=True)
    words = [word for segment in segments for word in segment.words]

    assert [word.word.strip() for word in words] == ["seven", "two", "stop"]
    # The first one is taken to begin with the silence before it, so where it begins is not asked.
    for word, begin in zip(words[1:], clip.begins[1:], strict=True):
        assert abs(word.start - (1 + begin)) < 0.4
