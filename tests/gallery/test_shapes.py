"""Models that are folders: told by what lies in them, installed from a hub on loopback."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gallery.catalog import Catalog
from gallery.errors import InstallError, SourceError
from gallery.installed import leftovers, read_lock
from gallery.shapes import shape_of
from gallery.source import inner_folder
from gallery.variants import RepositoryFile
from tests.gallery.test_worker import Worker, install
from tests.helpers.file_server import FileServer
from tests.helpers.tiny_whisper import write_tiny_whisper


def safetensors(text: str = "") -> bytes:
    header = json.dumps({"__metadata__": {"about": text}}).encode()
    return len(header).to_bytes(8, "little") + header


INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
}
TURBO = "sd-turbo"
PIPELINE = {
    "model_index.json": json.dumps(INDEX).encode(),
    "README.md": b"hello",
    "sd_turbo.safetensors": safetensors("all in one"),
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": safetensors("whole"),
    "unet/diffusion_pytorch_model.fp16.safetensors": safetensors("half"),
    "unet/diffusion_pytorch_model.bin": b"\x80\x02",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"",
    "vae_onnx/model.onnx": b"",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    whisper = write_tiny_whisper(tmp_path / "whisper")
    heard = {path.name: path.read_bytes() for path in whisper.iterdir()}
    hub = {
        "stabilityai/sd-turbo": PIPELINE,
        "Systran/faster-whisper-tiny": {**heard, "README.md": b"hello"},
        "a/onnx": {"model.onnx": b"\x08"},
    }
    with FileServer(hub=hub) as server:
        yield server


def test_a_pipeline_becomes_a_folder_that_diffusers_reads(server: FileServer, tmp_path: Path) -> None:
    models = tmp_path / "models"

    done = install(server, models, TURBO)

    assert done["event"] == "done", done
    assert sorted(p.relative_to(models / "sd-turbo" / "model").as_posix() for p in in_folder(models / "sd-turbo")) == [
        "model_index.json",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
    ]
    lock = read_lock(models / "sd-turbo")
    assert lock is not None
    assert "half precision" in lock.why
    assert "model/unet/config.json" in [file.name for file in lock.files]
    catalog = Catalog(models, engines=lambda: {"diffusers": ("image",)})
    catalog.refresh()
    card = catalog.lookup("sd-turbo")
    assert catalog.problems == ()
    assert card is not None
    assert (card.engine, card.path, card.capabilities) == ("diffusers", models / "sd-turbo" / "model", ("image",))


def test_a_whisper_model_becomes_a_folder_that_whisper_reads(server: FileServer, tmp_path: Path) -> None:
    models = tmp_path / "models"

    done = install(server, models, "whisper-tiny")

    assert done["event"] == "done", done
    names = {path.name for path in (models / "whisper-tiny").iterdir()}
    assert {"model.bin", "config.json", "tokenizer.json"} <= names
    assert "README.md" not in names
    assert "engine: whisper\npath: whisper-tiny/model.bin\n" in (models / "whisper-tiny.yaml").read_text()


def test_a_folder_whose_install_was_cut_short_is_finished_and_leaves_nothing(
    server: FileServer, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    server.rate = 1000
    inside = models / "sd-turbo" / "model"

    Worker(server, models, TURBO).kill_when(lambda: (inside / "model_index.json").exists())
    assert not (models / "sd-turbo.yaml").exists()
    server.rate = 0

    assert install(server, models, TURBO)["event"] == "done"
    assert leftovers(models, frozenset()) == []
    server.hub["stabilityai/sd-turbo"] = {
        **PIPELINE,
        "unet/config.json": b'{"new": 1}',
        "tokenizer/special.json": b"{}",
    }
    del server.hub["stabilityai/sd-turbo"]["tokenizer/merges.txt"]
    assert install(server, models, TURBO)["event"] == "done"
    assert (inside / "unet" / "config.json").read_text() == '{"new": 1}'
    assert not (inside / "tokenizer" / "merges.txt").exists()


def test_a_local_folder_is_used_where_it_lies(server: FileServer, tmp_path: Path) -> None:
    done = install(server, tmp_path / "models", f"file://{tmp_path}/whisper", name="ears")

    assert done["event"] == "done", done
    told = (tmp_path / "models" / "ears.yaml").read_text()
    assert f"engine: whisper\npath: {tmp_path}/whisper/model.bin" in told


def test_what_no_engine_runs_is_told_by_name(server: FileServer, tmp_path: Path) -> None:
    assert "no voice of piper or kokoro" in install(server, tmp_path / "models", "hf://a/onnx")["message"]


def test_a_page_in_place_of_weights_is_found_out(server: FileServer, tmp_path: Path) -> None:
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    server.hub["stabilityai/sd-turbo"] = {**PIPELINE, half: b"<html>log in first</html>"}

    failed = install(server, tmp_path / "models", TURBO)

    assert "no safetensors file" in failed["message"]
    assert not (tmp_path / "models" / "sd-turbo.yaml").exists()


def in_folder(folder: Path) -> list[Path]:
    return [path for path in (folder / "model").rglob("*") if path.is_file()]


def refusal(files: Mapping[str, Any]) -> str:
    listed = [RepositoryFile(path, 1, None) for path in files]
    with pytest.raises(InstallError) as caught:
        shape_of(listed, lambda path: files[path], "it")
    return str(caught.value)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config.json": {"architectures": ["LlamaForCausalLM"]}, "a.safetensors": 0}, "(LlamaForCausalLM), which no"),
        ({"config.json": {}, "pytorch_model.bin": 0}, "pickled checkpoint"),
        ({"config.json": {"shared_vocabulary": 1}, "model.bin": 0}, "not a whole one of whisper's"),
        ({"a.safetensors": 0}, "neither model_index.json nor config.json"),
        ({"README.md": 0}, "has no GGUF file"),
        ({"model_index.json": {"unet": ["diffusers", "X"]}}, "its part 'unet' is missing"),
        ({"model_index.json": {"unet": ["diffusers", "X"]}, "unet/config.json": 0}, "has no weights"),
        ({"model_index.json": {"unet": ["diffusers", "X"]}, "unet/a.bin": 0}, "pickled checkpoint"),
    ],
)
def test_each_folder_that_is_no_model_for_us_is_refused_in_words_that_fit(files: Mapping[str, Any], told: str) -> None:
    assert told in refusal(files)


@pytest.mark.parametrize("path", ["../x.json", "a/../../x.json", "/etc/passwd", "a/b/c/d/e/x.json", ".git/config"])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(SourceError):
        inner_folder(path)
