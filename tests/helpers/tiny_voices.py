"""Voices of random weights with the inputs, outputs and files of piper's and kokoro's: every phoneme a short noise of
its own. Written without the `onnx` package, whose one use here would be to write these few bytes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HOP = 256
"""Samples of a phoneme at normal speed: four of these parts."""

PIPER_RATE = 16_000
PHONEMES = "_^$ .,;:!?abdefhijklmnopstuvwxzæðŋɑɐɔəɚɛɜɡɪɹʃʊʌʒθˈˌːɾ0123456789"  # noqa: RUF001
INT64, FLOAT = 7, 1


def write_piper(folder: Path, name: str = "tiny", *, speakers: Sequence[str] = ()) -> Path:
    """Writes NAME.onnx and NAME.onnx.json into `folder`, and returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [_value("input", INT64, [1, "t"]), _value("input_lengths", INT64, [1]), _value("scales", FLOAT, [3])]
    if speakers:
        inputs.append(_value("sid", INT64, [1]))
    graph = [
        *_constants(seed=1),
        _node("Gather", ["scales", "one"], "length"),
        *_sound("input", "length", "Mul", shape="as_piper", output="output"),
    ]
    model = folder / f"{name}.onnx"
    model.write_bytes(_model(graph, inputs, _value("output", FLOAT, [1, 1, "n"])))
    config = {
        "audio": {"sample_rate": PIPER_RATE},
        "espeak": {"voice": "en-us"},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "phoneme_id_map": {phoneme: [number] for number, phoneme in enumerate(PHONEMES)},
        "num_speakers": max(1, len(speakers)),
        "speaker_id_map": {speaker: number for number, speaker in enumerate(speakers)},
    }
    (folder / f"{name}.onnx.json").write_text(json.dumps(config))
    return model


def write_kokoro(folder: Path, voices: Sequence[str] = ("af_heart", "af_nova", "bf_emma")) -> Path:
    """Writes a kokoro folder, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [_value("tokens", INT64, [1, "t"]), _value("style", FLOAT, [1, 256]), _value("speed", FLOAT, [1])]
    graph = [
        *_constants(seed=2),
        _node("ReduceMean", ["style"], "loud", _int_attribute("keepdims", 0)),
        *_sound("tokens", "speed", "Div", shape="as_kokoro", output="plain"),
        _node("Mul", ["plain", "loud"], "audio"),
    ]
    (folder / "kokoro.onnx").write_bytes(_model(graph, inputs, _value("audio", FLOAT, ["n"])))
    (folder / "config.json").write_text(json.dumps({"vocab": {p: n for n, p in enumerate(PHONEMES)}}))
    styles = {name: np.full((510, 1, 256), 1 / (index + 1), np.float32) for index, name in enumerate(voices)}
    with (folder / "voices-v1.0.bin").open("wb") as file:
        np.savez(file, **styles)
    return folder


def _constants(seed: int) -> list[bytes]:
    table = np.random.default_rng(seed).uniform(-0.5, 0.5, (len(PHONEMES), HOP)).astype(np.float32)
    return [
        _tensor("table", table),
        _tensor("one", np.array([1], np.int64)),
        _tensor("four", np.array([4], np.float32)),
        _tensor("ones", np.array([1, 1], np.int64)),
        _tensor("as_piper", np.array([1, 1, -1], np.int64)),
        _tensor("as_kokoro", np.array([-1], np.int64)),
    ]


def _sound(ids: str, pace: str, by: str, *, shape: str, output: str) -> list[bytes]:
    """A row of the table for each number, repeated four times at normal pace, one after the other."""
    return [
        _node("Gather", ["table", ids], "rows"),
        _node(by, ["four", pace], "paced"),
        _node("Cast", ["paced"], "times", _int_attribute("to", INT64)),
        _node("Concat", ["ones", "times"], "repeats", _int_attribute("axis", 0)),
        _node("Tile", ["rows", "repeats"], "tiled"),
        _node("Reshape", ["tiled", shape], output),
    ]


# ONNX is protobuf: fields of a number, a kind and a value. `graph` entries know their field: 1 a node, 5 a constant.


def _varint(number: int) -> bytes:
    written = b""
    while number > 127:
        written += bytes([number & 127 | 128])
        number >>= 7
    return written + bytes([number])


def _field(number: int, value: "int | str | bytes") -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _node(kind: str, inputs: Sequence[str], output: str, attribute: bytes = b"") -> bytes:
    body = b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, kind)
    return _field(1, body + (_field(5, attribute) if attribute else b""))


def _int_attribute(name: str, value: int) -> bytes:
    return _field(1, name) + _field(3, value) + _field(20, 2)


def _tensor(name: str, values: np.ndarray) -> bytes:
    kind = FLOAT if values.dtype == np.float32 else INT64
    shape = b"".join(_field(1, length) for length in values.shape)
    return _field(5, shape + _field(2, kind) + _field(8, name) + _field(9, values.tobytes()))


def _value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    dimensions = b"".join(_field(1, _field(1 if isinstance(n, int) else 2, n)) for n in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dimensions)))


def _model(graph: Sequence[bytes], inputs: Sequence[bytes], output: bytes) -> bytes:
    body = b"".join(graph) + _field(2, "voice") + b"".join(_field(11, put) for put in inputs) + _field(12, output)
    return _field(1, 8) + _field(8, _field(1, "") + _field(2, 13)) + _field(7, body)
