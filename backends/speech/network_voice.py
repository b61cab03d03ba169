"""Voices of neural networks, through onnxruntime: piper's and kokoro's, a sentence at a time.

    piper    NAME.onnx, NAME.onnx.json      numbers of phonemes, and three of manner, to sound
    kokoro   a folder with one .onnx, its `vocab` (in config.json or tokenizer.json) and its voices (voices*.bin, or a
             VOICE.bin for each): numbers of phonemes, a style by voice and length, and a speed, to sound

Piper draws some of its manner by lot, so a speech that breaks off and goes on at another node may be heard to do so;
with the setting `noise: 0` the same text gives the same bytes everywhere.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

from backends.errors import EngineError, ModelFileError, OutOfMemoryError

MAX_CONFIG_BYTES = 4 * 1024 * 1024
LONGEST = 510
"""Phonemes that kokoro takes at once; more are spoken one stretch after the other."""

KOKORO_RATE = 24_000
STYLE = 256
"""Numbers of a kokoro style."""

Ids = list[int]
Sound = npt.NDArray[np.float32]


class NetworkVoice(Protocol):
    """A loaded network with one or more voices."""

    sample_rate: int
    voices: Mapping[str, str]
    """The language of each, as espeak-ng calls it; the model's own choice first."""
    about: str

    def say(self, phonemes: str, voice: str, speed: float) -> bytes:
        """The sound of a sentence: 16-bit mono samples in native byte order. Slow: not for the event loop."""
        ...


def open_voice(path: str, *, noise: float, threads: int) -> NetworkVoice:
    """The voice at `path`, an .onnx file or a folder with one.

    Raises:
        ModelFileError: it is none.
    """
    given = Path(path)
    weights = [given] if given.is_file() else sorted(given.glob("*.onnx"))
    if len(weights) != 1:
        raise ModelFileError(f"{given}: a voice is one .onnx file, or a folder with one; here are {len(weights)}")
    [model] = weights
    own = model.with_name(f"{model.name}.json")
    tokenizer = model.with_name("tokenizer.json")
    named = next((path for path in (own, tokenizer) if path.is_file()), model.with_name("config.json"))
    config = _config(named)
    try:
        if named == tokenizer:
            config = {"vocab": config["model"]["vocab"]}
        if "phoneme_id_map" in config:
            if config.get("phoneme_type", "espeak") != "espeak":
                raise ModelFileError(f"{model}: it wants {config['phoneme_type']!r} phonemes; only espeak's are here")
            return Piper(_session(model, threads), config, noise)
        if "vocab" in config:
            return Kokoro(_session(model, threads), config, _styles(model.parent))
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ModelFileError(f"{model}: its config is not a voice's: {type(exc).__name__}: {exc}") from exc
    raise ModelFileError(f"{model}: its config has neither piper's `phoneme_id_map` nor kokoro's `vocab`")


class Piper:
    """A voice of the piper project (VITS)."""

    def __init__(self, session: onnxruntime.InferenceSession, config: Mapping[str, Any], noise: float) -> None:
        self._session = session
        self._ids: Mapping[str, Ids] = {
            str(key): [int(n) for n in ids] for key, ids in config["phoneme_id_map"].items()
        }
        self.sample_rate = int(config["audio"]["sample_rate"])
        manner = config.get("inference", {})
        self._noise = float(manner.get("noise_scale", 0.667)) * noise
        self._length = float(manner.get("length_scale", 1.0))
        self._rhythm = float(manner.get("noise_w", 0.8)) * noise
        language = str(config["espeak"]["voice"])
        speakers = {str(name): int(number) for name, number in (config.get("speaker_id_map") or {}).items()}
        self._speakers = speakers or {"default": 0}
        self._has_speakers = any(put.name == "sid" for put in session.get_inputs())
        self.voices: Mapping[str, str] = dict.fromkeys(self._speakers, language)
        self.about = f"piper, {len(self.voices)} voices of {language}"

    def say(self, phonemes: str, voice: str, speed: float) -> bytes:
        ids = [*self._of("^"), *self._of("_")]
        for phoneme in phonemes:
            if phoneme in self._ids:  # What the voice has no sound for is left out.
                ids += [*self._ids[phoneme], *self._of("_")]
        ids += self._of("$")
        inputs: dict[str, npt.NDArray[Any]] = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([self._noise, self._length / speed, self._rhythm], np.float32),
        }
        if self._has_speakers:
            inputs["sid"] = np.array([self._speakers[voice]], np.int64)
        return _samples(_run(self._session, inputs))

    def _of(self, mark: str) -> Ids:
        return self._ids.get(mark, [])


class Kokoro:
    """A voice of kokoro (StyleTTS 2)."""

    def __init__(
        self, session: onnxruntime.InferenceSession, config: Mapping[str, Any], styles: Mapping[str, Sound]
    ) -> None:
        self._session = session
        self._ids = {str(key): int(number) for key, number in config["vocab"].items()}
        self._styles = styles
        self._inputs = {put.name: put.type for put in session.get_inputs()}
        self._tokens = "input_ids" if "input_ids" in self._inputs else "tokens"
        self.sample_rate = KOKORO_RATE
        self.voices: Mapping[str, str] = {name: KOKORO_LANGUAGES.get(name[:1], "en-us") for name in styles}
        self.about = f"kokoro, {len(self.voices)} voices"

    def say(self, phonemes: str, voice: str, speed: float) -> bytes:
        ids = [self._ids[phoneme] for phoneme in phonemes if phoneme in self._ids]
        return b"".join(self._stretch(ids[at : at + LONGEST], voice, speed) for at in range(0, len(ids), LONGEST))

    def _stretch(self, ids: Ids, voice: str, speed: float) -> bytes:
        style = self._styles[voice]
        kind = np.int32 if self._inputs["speed"] == "tensor(int32)" else np.float32
        inputs = {
            self._tokens: np.array([[0, *ids, 0]], np.int64),
            "style": style[min(len(ids), len(style) - 1)].reshape(1, -1).astype(np.float32),
            "speed": np.array([max(1, round(speed)) if kind is np.int32 else speed], kind),
        }
        return _samples(_run(self._session, inputs))


KOKORO_LANGUAGES = {
    "a": "en-us",
    "b": "en-gb-x-rp",
    "e": "es",
    "f": "fr-fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-br",
    "z": "cmn",
}
"""By the first letter of a voice's name."""


def _run(session: onnxruntime.InferenceSession, inputs: dict[str, npt.NDArray[Any]]) -> Sound:
    try:
        return np.asarray(session.run(None, inputs)[0], np.float32).reshape(-1)
    except Exception as exc:  # onnxruntime's own errors have no base but this.
        if "alloc" in str(exc).lower():
            raise OutOfMemoryError(f"out of memory: {exc}") from exc
        raise EngineError(f"the voice broke on this sentence: {exc}") from exc


def _samples(sound: Sound) -> bytes:
    if not np.isfinite(sound).all():
        raise EngineError("the voice made sound that is no number; its file may be damaged")
    return (np.clip(sound, -1.0, 1.0) * 32767).astype(np.int16).tobytes()


def _session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # What matters of its messages is in its errors.
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=onnxruntime.get_available_providers())
    except Exception as exc:
        raise ModelFileError(f"{model}: {exc}") from exc


def _config(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelFileError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ModelFileError(f"{path} is missing: it says what the voice's numbers mean") from exc
    except ValueError as exc:
        raise ModelFileError(f"{path} is no JSON: {exc}") from exc
    if not isinstance(config, dict):
        raise ModelFileError(f"{path} is no JSON object")
    return config


def _styles(folder: Path) -> Mapping[str, Sound]:
    """The voices of kokoro: of each, a style by the number of phonemes."""
    files = sorted(folder.glob("voices*.bin")) + sorted(folder.glob("voices*.npz"))
    if not files and (single := sorted(folder.glob("*.bin"))):
        return {path.stem: np.fromfile(path, "<f4").reshape(-1, STYLE) for path in single}
    if not files:
        raise ModelFileError(f"{folder} has no voices*.bin and no VOICE.bin, which hold kokoro's voices")
    try:
        with np.load(files[0], allow_pickle=False) as archive:
            return {name: np.asarray(archive[name], np.float32).reshape(len(archive[name]), -1) for name in archive}
    except (OSError, ValueError, EOFError) as exc:
        raise ModelFileError(f"{files[0]}: {exc}") from exc
