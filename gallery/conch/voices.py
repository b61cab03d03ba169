"""Who speaks in the lessons, and who only in the exam.

Held out are two accents, three timbres that the speech engine offers, and bands of speed and pitch: a held-out voice
has never been heard in training, at no speed.
"""

import random

from gallery.conch.speaking import Voice

LANGUAGES = ("gmw/en", "gmw/en-US", "gmw/en-029", "gmw/en-GB-scotland", "gmw/en-GB-x-gbclan", "gmw/en-GB-x-rp")
HELD_OUT_LANGUAGES = ("gmw/en-GB-x-gbcwmd", "gmw/en-US-nyc")

TIMBRES = (
    *("f1", "f2", "f3", "f5", "m1", "m2", "m3", "m4", "m6", "m8", "croak"),
    *("whisper", "adam", "Alex", "Alicia", "Andrea", "Annie", "anika", "aunty", "belinda"),
    *("david", "edward2", "grandma", "grandpa", "ian", "iven3", "john", "klatt2", "klatt4"),
    *("linda", "mike2", "pablo", "paul", "rob", "shelby", "steph2", "travis", "victor"),
)
HELD_OUT_TIMBRES = ("f4", "m5", "m7")

RATES = (100, 260)
HELD_OUT_RATES = ((150, 162), (205, 215))
"""Words a minute."""
PITCHES = (10, 90)
HELD_OUT_PITCHES = ((38, 44), (62, 68))

USUAL = 0.3
"""Part of the lessons spoken with the library's usual timbre, pitch and speed, as most sound will be."""


def lesson_voice(rng: random.Random) -> Voice:
    """A voice that may be learnt from."""
    language = rng.choice(LANGUAGES)
    if rng.random() < USUAL:
        return Voice(language=language, timbre=rng.choice(("", "", "", *TIMBRES[:11])))
    return Voice(
        language=language,
        timbre=rng.choice(("", *TIMBRES)),
        rate=_outside(rng, RATES, HELD_OUT_RATES),
        pitch=_outside(rng, PITCHES, HELD_OUT_PITCHES),
        pitch_range=rng.randint(20, 80),
    )


def held_out_voice(rng: random.Random) -> Voice:
    """A voice for the exam: accent or timbre, speed and pitch are those that no lesson has."""
    language = rng.choice(HELD_OUT_LANGUAGES + LANGUAGES)
    known = language in LANGUAGES
    return Voice(
        language=language,
        timbre=rng.choice(HELD_OUT_TIMBRES if known else ("", *HELD_OUT_TIMBRES, *TIMBRES[:11])),
        rate=rng.randint(*rng.choice(HELD_OUT_RATES)),
        pitch=rng.randint(*rng.choice(HELD_OUT_PITCHES)),
    )


def _outside(rng: random.Random, within: tuple[int, int], bands: tuple[tuple[int, int], ...]) -> int:
    while True:
        value = rng.randint(*within)
        if not any(low <= value <= high for low, high in bands):
            return value
