"""LoRA adapters as a setting of a model."""

import json
from pathlib import Path

import grpc
import pytest

from backends.llama.engine import LlamaEngine
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import events_of, ids_of, refused, served
from tests.helpers.tiny_gguf import write_lora, write_tiny_model

MINNOW = "gallery/minnow/minnow.gguf"
ASK = pb.GenerateRequest(prompt="Once upon a time", max_tokens=24, ignore_eos=True, sampling=pb.Sampling(temperature=0))


async def answer_of(model: str, *adapters: tuple[Path, float]) -> list[int]:
    request = pb.LoadRequest(
        path=model,
        adapter_paths=[str(path) for path, _ in adapters],
        adapter_scales=[scale for _, scale in adapters],
        settings_json=json.dumps({"slots": 1, "context_length": 256}),
    )
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        assert [reply async for reply in stub.Load(request)][-1].HasField("loaded")
        return ids_of(await events_of(stub, ASK))


@pytest.mark.parametrize("kind", ["tiny", "minnow"])
async def test_an_adapter_changes_the_answer_and_at_scale_0_it_does_not(tmp_path: Path, kind: str) -> None:
    model = MINNOW if kind == "minnow" else str(write_tiny_model(tmp_path / "tiny.gguf"))
    lora = write_lora(tmp_path / "lora.gguf", model)
    base = await answer_of(model)

    assert await answer_of(model, (lora, 0.0)) == base
    changed = await answer_of(model, (lora, 1.0))
    assert changed != base
    assert await answer_of(model, (lora, 0.5), (lora, 0.5)) == changed


async def test_an_adapter_of_another_model_is_refused_with_both_names(tmp_path: Path) -> None:
    tiny = write_tiny_model(tmp_path / "tiny.gguf")
    lora = write_lora(tmp_path / "lora.gguf", tiny)

    with refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_model", f"{lora} as an adapter of {MINNOW}"):
        await answer_of(MINNOW, (lora, 1.0))


async def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_model", "adapter"):
        await answer_of(MINNOW, (Path(MINNOW), 1.0))
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(write_lora(tmp_path / "lora.gguf", MINNOW).read_bytes()[:5000])
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_model", str(torn)):
        await answer_of(MINNOW, (torn, 1.0))
