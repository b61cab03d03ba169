"""Models that hear and speak are installed by name: all of their files, and a card that runs them."""

from pathlib import Path

import pytest

from gallery.catalog import Catalog
from gallery.errors import InstallError
from gallery.sound_models import sound_model
from gallery.variants import RepositoryFile
from tests.gallery.test_worker import install
from tests.helpers.file_server import FileServer
from tests.helpers.tiny_voices import write_piper
from tests.helpers.tiny_whisper import write_tiny_whisper


def files(*paths: str) -> list[RepositoryFile]:
    return [RepositoryFile(path, 1, None) for path in paths]


def test_a_whisper_repository_is_known_by_its_files() -> None:
    found = sound_model(files("README.md", "config.json", "model.bin", "tokenizer.json", "vocabulary.txt"), "", "a/b")

    assert found is not None
    assert found.engine == "whisper"
    assert [file.path for file in found.files] == ["model.bin", "config.json", "tokenizer.json", "vocabulary.txt"]


def test_one_of_many_voices_is_taken_by_its_name() -> None:
    voices = [f"en/{name}.onnx{end}" for name in ("amy", "joe") for end in ("", ".json")]

    found = sound_model(files(*voices), "joe", "a/b")

    assert found is not None
    assert [file.path for file in found.files] == ["en/joe.onnx", "en/joe.onnx.json"]
    with pytest.raises(InstallError, match=r"2 voices, 'ann' not among them; say which, as in :amy"):
        sound_model(files(*voices), "ann", "a/b")


def test_kokoro_comes_with_its_voices() -> None:
    found = sound_model(
        files("onnx/model.onnx", "onnx/model_q4.onnx", "tokenizer.json", "voices/b.bin", "voices/a.bin"), "", "a/b"
    )

    assert found is not None
    assert [file.path for file in found.files] == ["onnx/model.onnx", "tokenizer.json", "voices/a.bin", "voices/b.bin"]


def test_anything_else_is_none_of_them() -> None:
    assert sound_model(files("model.safetensors", "config.json", "tokenizer.json"), "", "a/b") is None


def test_a_whisper_and_a_voice_are_installed_from_a_hub(tmp_path: Path) -> None:
    whisper = {path.name: path.read_bytes() for path in write_tiny_whisper(tmp_path / "w").iterdir()}
    write_piper(tmp_path / "p", "amy")
    voice = {f"en/{path.name}": path.read_bytes() for path in (tmp_path / "p").iterdir()}
    models = tmp_path / "models"
    with FileServer(hub={"a/faster-whisper": whisper, "a/voices": voice}) as server:
        first = install(server, models, "hf://a/faster-whisper", name="ears")
        second = install(server, models, "hf://a/voices:amy", name="mouth")

    assert (first["event"], second["event"]) == ("done", "done"), (first, second)
    catalog = Catalog(models)
    catalog.refresh()
    ears, mouth = catalog.lookup("ears"), catalog.lookup("mouth")
    assert ears is not None
    assert mouth is not None
    assert (ears.engine, ears.capabilities, ears.path) == ("whisper", ("transcription",), models / "ears" / "model.bin")
    assert (mouth.engine, mouth.capabilities, mouth.path) == ("speech", ("speech",), models / "mouth" / "amy.onnx")
    assert {path.name for path in (models / "ears").iterdir()} >= set(whisper)
