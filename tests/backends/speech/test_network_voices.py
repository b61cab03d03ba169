"""Voices with weights: files of piper and kokoro are loaded, listed and spoken with, sentence by sentence."""

import json
from pathlib import Path

import grpc
import numpy as np
import pytest

from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from backends.speech.engine import SpeechEngine
from backends.speech.espeak import Espeak
from backends.speech.phonemes import with_punctuation
from backends.speech.voices import UnknownVoiceError, network_voice
from tests.backends.harness import load, refused, served
from tests.helpers.tiny_voices import HOP, PHONEMES, PIPER_RATE, write_kokoro, write_piper


async def spoken(stub: BackendStub, text: str, **wanted: object) -> bytes:
    request = pb.SpeechRequest(text=text, format="pcm", **wanted)
    return b"".join([reply.audio async for reply in stub.Speak(request)])


async def test_piper_speaks_a_sentence_as_its_phonemes(tmp_path: Path) -> None:
    with Espeak() as espeak:
        phonemes = espeak.phonemes("Hello there", espeak.languages["en-us"].file)
    known = sum(phoneme in PHONEMES for phoneme in phonemes)
    assert known > 6
    async with served(SpeechEngine) as channel:
        stub = BackendStub(channel)
        loaded = await load(stub, str(write_piper(tmp_path)))
        sound = await spoken(stub, "Hello there.")
        slow = await spoken(stub, "Hello there.", speed=0.5)

    # Begin, end, the full stop and every phoneme, a gap after each but the end; then 24 kHz.
    sounds = 2 * (known + 2) + 1
    assert len(sound) / 2 == pytest.approx(sounds * HOP * 4 * 24_000 / PIPER_RATE, rel=0.01)
    assert len(slow) == pytest.approx(2 * len(sound), rel=0.01)
    assert "piper" in loaded.summary


async def test_piper_has_the_speakers_of_its_config(tmp_path: Path) -> None:
    async with served(SpeechEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(write_piper(tmp_path, speakers=["anna", "ben"])))
        listed = await stub.ListVoices(pb.VoicesRequest())

        assert [(voice.id, voice.language) for voice in listed.voices] == [("anna", "en-us"), ("ben", "en-us")]
        assert await spoken(stub, "Hello.", voice="Ben")
        assert await spoken(stub, "Hello.", voice="alloy")
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "did you mean anna"):
            await spoken(stub, "Hello.", voice="hanna")


async def test_kokoro_speaks_with_each_of_its_voices(tmp_path: Path) -> None:
    async with served(SpeechEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(write_kokoro(tmp_path)))
        listed = await stub.ListVoices(pb.VoicesRequest())
        loud, half = [np.frombuffer(await spoken(stub, "Hello.", voice=v), np.int16) for v in ("af_heart", "nova")]
        assert await spoken(stub, "Hello.", voice="bf_emma")

    assert [(voice.id, voice.language) for voice in listed.voices] == [
        ("af_heart", "en-us"),
        ("af_nova", "en-us"),
        ("bf_emma", "en-gb-x-rp"),
    ]
    assert np.abs(loud.astype(int)).mean() == pytest.approx(2 * np.abs(half.astype(int)).mean(), rel=0.05)


async def test_kokoro_is_read_as_the_hub_has_it(tmp_path: Path) -> None:
    folder = write_kokoro(tmp_path)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab"]
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    (folder / "voices-v1.0.bin").unlink()
    np.ones((510, 1, 256), "<f4").tofile(folder / "af_heart.bin")
    async with served(SpeechEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(folder / "kokoro.onnx"))

        assert await spoken(stub, "Hello.", voice="af_heart")


async def test_a_long_text_comes_sentence_by_sentence_and_the_same_each_time(tmp_path: Path) -> None:
    async with served(SpeechEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(write_kokoro(tmp_path)))
        request = pb.SpeechRequest(text="One sentence. Another one! " * 10, format="pcm")
        first = [reply.audio async for reply in stub.Speak(request) if reply.audio]
        second = [reply.audio async for reply in stub.Speak(request) if reply.audio]

    assert len(first) >= 20
    assert first == second


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda folder: (folder / "tiny.onnx").write_bytes(b"nonsense"), "tiny.onnx", id="no network"),
        pytest.param(lambda folder: (folder / "tiny.onnx.json").unlink(), "is missing", id="no config"),
        pytest.param(lambda folder: (folder / "tiny.onnx.json").write_text("{}"), "neither", id="an empty config"),
        pytest.param(lambda folder: (folder / "tiny.onnx.json").write_text("x"), "no JSON", id="a config that is none"),
        pytest.param(
            lambda folder: (folder / "tiny.onnx.json").write_text('{"phoneme_id_map": 3}'),
            "not a voice's",
            id="a wrong one",
        ),
        pytest.param(lambda folder: write_piper(folder, "other"), "here are 2", id="two voices"),
    ],
)
async def test_a_voice_that_cannot_be_used_says_why(tmp_path: Path, spoil: object, message: str) -> None:
    write_piper(tmp_path)
    spoil(tmp_path)  # type: ignore[operator]
    async with served(SpeechEngine) as channel:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_model", message):
            await load(BackendStub(channel), str(tmp_path))


def test_punctuation_stays_where_it_was() -> None:
    def upper(words: str) -> str:
        return words.strip().upper()

    assert with_punctuation("One, two; three... Four?", upper) == "ONE, TWO; THREE. FOUR?"
    assert with_punctuation("3.50 at 10:30!", upper) == "3.50 AT 10:30!"
    assert with_punctuation("ja (en)hello(de)", lambda words: words) == "ja hello"
    assert with_punctuation("...", upper) == ""


def test_names_of_voices() -> None:
    voices = ["af_heart", "af_nova"]

    assert network_voice("", voices) == "af_heart"
    assert network_voice("AF_Nova", voices) == "af_nova"
    assert network_voice("nova", voices) == "af_nova"
    assert network_voice("onyx", voices) in voices
    with pytest.raises(UnknownVoiceError, match="known are af_heart, af_nova"):
        network_voice("xyz", voices)
