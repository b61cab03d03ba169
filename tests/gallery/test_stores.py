"""Models of other programs are used where they lie."""

import hashlib
import json
from pathlib import Path

from gallery.catalog import Catalog
from gallery.stores import models_in
from tests.gallery.gguf_files import gguf

WEIGHTS = gguf()


def ollama(store: Path, name: str, weights: bytes = WEIGHTS, *, layers: object = None) -> None:
    digest = hashlib.sha256(weights).hexdigest()
    manifest = store / "manifests" / "registry.ollama.ai" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    (store / "blobs").mkdir(exist_ok=True)
    (store / "blobs" / f"sha256-{digest}").write_bytes(weights)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}", "size": len(weights)}
    manifest.write_text(json.dumps({"layers": layers if layers is not None else [layer]}))


def test_ollamas_store_is_read_by_its_manifests(tmp_path: Path) -> None:
    ollama(tmp_path, "library/fish/1b")
    ollama(tmp_path, "me/mine/latest")
    catalog = Catalog(tmp_path / "models", stores=[tmp_path])

    catalog.refresh()

    assert [card.name for card in catalog.cards() if card.source == "store"] == ["fish:1b", "me/mine:latest"]
    card = catalog.lookup("fish:1b")
    assert card is not None
    assert (card.engine, card.path) == ("llama", tmp_path / "blobs" / f"sha256-{hashlib.sha256(WEIGHTS).hexdigest()}")


def test_a_manifest_that_makes_no_sense_is_passed_over(tmp_path: Path) -> None:
    ollama(tmp_path, "library/good/1b")
    bad: list[object] = [1, [], [{}], [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../x"}]]
    for number, layers in enumerate(bad):
        ollama(tmp_path, f"library/bad{number}/1b", layers=layers)
    (tmp_path / "manifests" / "registry.ollama.ai" / "library" / "bad0" / "2b").write_bytes(b"\xff")

    assert list(models_in(tmp_path)) == ["good:1b"]


def test_lm_studios_store_and_any_folder_are_searched(tmp_path: Path) -> None:
    for path in ("pub/repo/fish-Q4_0.gguf", "pub/repo/mmproj-fish.gguf", "pub/other/fish-Q4_0.gguf", "top.gguf"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(WEIGHTS)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "no.gguf").write_bytes(WEIGHTS)

    assert models_in(tmp_path) == {
        "top": tmp_path / "top.gguf",
        "fish-Q4_0": tmp_path / "pub/other/fish-Q4_0.gguf",
        "repo/fish-Q4_0": tmp_path / "pub/repo/fish-Q4_0.gguf",
    }


def test_a_model_that_comes_to_a_store_is_noticed_and_ones_own_folder_comes_first(tmp_path: Path) -> None:
    models, store = tmp_path / "models", tmp_path / "store"
    models.mkdir()
    store.mkdir()
    catalog = Catalog(models, stores=[store])
    catalog.refresh()

    (store / "fish.gguf").write_bytes(WEIGHTS)
    assert catalog.refresh()
    assert not catalog.refresh()
    stored = catalog.lookup("fish")
    (models / "fish.yaml").write_text("engine: echo\n")
    catalog.refresh()
    own = catalog.lookup("fish")

    assert stored is not None
    assert own is not None
    assert (stored.source, own.source, own.engine) == ("store", "folder", "echo")


def test_a_store_that_is_not_there_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, stores=[tmp_path / "gone"])

    catalog.refresh()

    assert "--models-from" in catalog.problems[0]
    assert catalog.lookup("minnow") is not None
