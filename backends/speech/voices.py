"""Which voice is meant: a language of espeak-ng, a timbre of it, or one of OpenAI's names. Pure."""

import difflib
import re
from collections.abc import Collection, Sequence

DEFAULT = "en-us"

TIMBRES = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "croak", "whisper")
"""What may follow a language after a "+"; the library has a few hundred more of doubtful use."""

OPENAI = {
    "alloy": "en-us",
    "ash": "en-us+m3",
    "ballad": "en-gb+m7",
    "cedar": "en-us+m1",
    "coral": "en-us+f2",
    "echo": "en-us+m2",
    "fable": "en-gb+m4",
    "marin": "en-us+f1",
    "nova": "en-us+f4",
    "onyx": "en-us+m6",
    "sage": "en-us+f3",
    "shimmer": "en-us+f5",
    "verse": "en-us+m8",
}
"""Clients send these names by habit: each is a voice of its own here, in English."""

_SHAPE = re.compile(r"([A-Za-z0-9-]{1,40})(?:\+([a-z0-9]{1,20}))?")


class UnknownVoiceError(ValueError):
    """There is no such voice; the message names some that there are."""


def voice_for(wanted: str, language: str, languages: Collection[str]) -> str:
    """The library's name of the voice that is meant; both may be empty.

    Raises:
        UnknownVoiceError: it does not exist.
    """
    voice = OPENAI.get(wanted.lower(), wanted) or language or DEFAULT
    if language and wanted.lower() in OPENAI:
        voice = "+".join([language, *OPENAI[wanted.lower()].split("+")[1:]])
    match = _SHAPE.fullmatch(voice)
    code = match[1].lower() if match else voice
    timbre = match[2] if match else None
    if code not in languages:
        raise UnknownVoiceError(f"there is no voice {voice[:60]!r}; {_hint(code, languages)}")
    if timbre is not None and timbre not in TIMBRES:
        raise UnknownVoiceError(f"voice {code!r} has no timbre {timbre!r}; there are {', '.join(TIMBRES)}")
    return f"{code}+{timbre}" if timbre else code


def network_voice(wanted: str, voices: Sequence[str]) -> str:
    """The voice of a network that is meant: one of `voices`, whose first is its own choice. OpenAI's names stand for
    those that end in them (kokoro's af_nova), or else for one of them, always the same.

    Raises:
        UnknownVoiceError: it has no such voice.
    """
    if not wanted:
        return voices[0]
    by_name = {voice.lower(): voice for voice in voices}
    name = wanted.lower()
    if name in by_name:
        return by_name[name]
    if name in OPENAI:
        alike = [voice for voice in voices if voice.lower().endswith(f"_{name}")]
        return alike[0] if alike else voices[sorted(OPENAI).index(name) % len(voices)]
    near = difflib.get_close_matches(name, by_name, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(voices[:20])}"
    raise UnknownVoiceError(f"there is no voice {wanted[:60]!r}; {hint}")


def _hint(code: str, languages: Collection[str]) -> str:
    near = difflib.get_close_matches(code, [*languages, *OPENAI], n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known are {', '.join(sorted(OPENAI))} and languages like en-us, de, fr, cmn"
