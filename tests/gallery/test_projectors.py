"""Whose eyes lie in a folder."""

from pathlib import Path

import pytest

from gallery.catalog import Catalog
from gallery.digest import DigestCache
from gallery.projectors import pair
from tests.gallery.gguf_files import gguf
from tests.helpers.projectors import write_projector


@pytest.mark.parametrize(
    ("models", "projectors", "paired"),
    [
        pytest.param(["a"], ["mmproj-a"], {"a": "mmproj-a"}, id="the same name"),
        pytest.param(["a"], ["a-mmproj"], {"a": "a-mmproj"}, id="at the end"),
        pytest.param(
            ["Qwen2-VL-7B-Q4_K_M", "b"],
            ["mmproj-qwen2-vl-7b-f16"],
            {"Qwen2-VL-7B-Q4_K_M": "mmproj-qwen2-vl-7b-f16"},
            id="another precision",
        ),
        pytest.param(["a-q8_0", "a-q4_0"], ["mmproj-a"], {"a-q8_0": "mmproj-a", "a-q4_0": "mmproj-a"}, id="for two"),
        pytest.param(["gemma-3"], ["mmproj-F16"], {"gemma-3": "mmproj-F16"}, id="nameless, for the only model"),
        pytest.param(["a"], ["mmproj-b"], {}, id="another's"),
        pytest.param(["a"], ["mmproj-a-f16", "mmproj-a-bf16"], {"a": "mmproj-a-bf16"}, id="one of two"),
        pytest.param(["qwen2-vl-7b"], ["mmproj-qwen2-vl-2b"], {}, id="another size"),
    ],
)
def test_a_projector_goes_with_its_model(models: list[str], projectors: list[str], paired: dict[str, str]) -> None:
    assert pair(models, projectors) == (paired, [])


def test_a_nameless_one_among_several_models_is_told_of() -> None:
    assert pair(["a", "b"], ["mmproj"]) == ({}, ["mmproj"])


def test_what_lies_beside_a_model_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "seer.gguf").write_bytes(gguf())
    write_projector(tmp_path / "mmproj-seer-f16.gguf", "mlp")
    (tmp_path / "blind.gguf").write_bytes(gguf())
    catalog = Catalog(tmp_path)
    catalog.refresh()

    seer, blind = catalog.lookup("seer"), catalog.lookup("blind")

    assert seer is not None
    assert seer.projector == tmp_path / "mmproj-seer-f16.gguf"
    assert "vision" in seer.capabilities
    assert blind is not None
    assert blind.projector is None
    assert "vision" not in blind.capabilities
    assert catalog.lookup("mmproj-seer-f16") is None


def test_a_card_names_another(tmp_path: Path) -> None:
    (tmp_path / "seer.gguf").write_bytes(gguf())
    (tmp_path / "other.gguf").write_bytes(gguf())
    write_projector(tmp_path / "mmproj.gguf", "ultravox")
    catalog = Catalog(tmp_path)
    catalog.refresh()
    assert "may belong to any model" in (catalog.problem_with("mmproj") or "")

    (tmp_path / "seer.yaml").write_text("mmproj: mmproj.gguf\n")
    catalog.refresh()

    seer = catalog.lookup("seer")
    assert seer is not None
    assert seer.projector == tmp_path / "mmproj.gguf"
    assert "audio_in" in seer.capabilities
    assert catalog.problems == ()


async def test_eyes_make_another_model(tmp_path: Path) -> None:
    (tmp_path / "seer.gguf").write_bytes(gguf())
    catalog, digests = Catalog(tmp_path), DigestCache(tmp_path / "digests.json")
    catalog.refresh()
    blind = catalog.lookup("seer")
    write_projector(tmp_path / "mmproj-seer.gguf", "mlp")
    catalog.refresh()
    seer = catalog.lookup("seer")

    assert blind is not None
    assert seer is not None
    assert await digests.digest(blind) != await digests.digest(seer)
