"""What is chosen where a setting is absent."""

from typing import Any

import pytest

from backends.errors import InvalidValueError, OutOfMemoryError
from backends.llama.offload import Device, Wishes
from backends.llama.settings import (
    LlamaSettings,
    Machine,
    ModelFacts,
    check_weights_fit,
    choose,
    repacks,
    wishes_of,
)
from backends.settings import read_settings

GIB = 2**30


def model(**changes: Any) -> ModelFacts:
    usual: dict[str, Any] = {
        "description": "test", "trained_context": 32768, "layers": 24, "weight_bytes": GIB,
        "cache_bytes_per_token": 128 * 1024, "can_share": True,
    }  # fmt: skip
    return ModelFacts(**{**usual, **changes})


def machine(free: float = 64, **changes: Any) -> Machine:
    return Machine(**{"free_bytes": int(free * GIB), "cores": 8, **changes})


@pytest.mark.parametrize(
    ("wishes", "facts", "free", "context", "slots"),
    [
        pytest.param({}, {}, 64, 4096, 8, id="plenty of memory"),
        pytest.param({}, {"trained_context": 2048}, 64, 2048, 8, id="a short training context"),
        pytest.param({}, {}, 4, 4096, 4, id="fewer slots first"),
        pytest.param({}, {}, 0.5, 2048, 1, id="then a shorter context"),
        pytest.param({"slots": 4}, {}, 2, 2048, 4, id="slots asked for stay"),
        pytest.param({"context_length": 8192}, {}, 4, 8192, 2, id="a context asked for stays"),
        pytest.param({"context_length": 8192, "slots": 2}, {}, 2.5, 8192, 2, id="both, and just enough"),
    ],
)
def test_context_and_slots_fit_the_memory(wishes: Any, facts: Any, free: float, context: int, slots: int) -> None:
    plan = choose(LlamaSettings(**wishes), model(**facts), machine(free))

    assert (plan.context_length, plan.slots) == (context, slots)
    assert plan.context_bytes == context * slots * 128 * 1024
    assert f"{slots} slots of {context} tokens" in plan.summary


def test_slots_may_share_a_smaller_cache() -> None:
    plan = choose(LlamaSettings(slots=8, context_length=4096, cache_tokens=10_000), model(), machine(2.5))

    assert (plan.slots, plan.cells, plan.context_bytes) == (8, 10_000, 10_000 * 128 * 1024)
    assert "10000 tokens of cache for all" in plan.summary
    with pytest.raises(InvalidValueError, match="cache_tokens must be at least a context of 4096"):
        choose(LlamaSettings(context_length=4096, cache_tokens=4000), model(), machine())


def test_what_does_not_fit_says_how_much_is_missing() -> None:
    with pytest.raises(OutOfMemoryError, match=r"takes 2\.0 GiB, and 1\.0 GiB"):
        choose(LlamaSettings(context_length=4096, slots=4), model(), machine(1))


def test_weights_larger_than_memory_are_refused() -> None:
    with pytest.raises(OutOfMemoryError, match=r"big\.gguf has 2\.0 GiB and 1\.0 GiB"):
        check_weights_fit("big.gguf", 2 * GIB, machine(1))
    check_weights_fit("big.gguf", 2 * GIB, machine(1, devices=(Device("CUDA0", "cuda", 3 * GIB, 4 * GIB),)))


def test_more_context_than_trained_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="trained"):
        choose(LlamaSettings(context_length=99999), model(), machine())


@pytest.mark.parametrize(
    ("wishes", "weights", "threads"),
    [({}, GIB, 8), ({}, 6 * 2**20, 1), ({"threads": 3}, 6 * 2**20, 3)],
    ids=["all cores", "one for a small model", "as asked"],
)
def test_threads(wishes: Any, weights: int, threads: int) -> None:
    assert choose(LlamaSettings(**wishes), model(weight_bytes=weights), machine()).threads == threads


def test_who_loads_a_model_may_name_other_devices_than_its_settings() -> None:
    settings = read_settings(LlamaSettings, '{"devices": ["CUDA1"], "tensor_split": [1, 2.5], "gpu_layers": 7}')

    assert wishes_of(settings, []) == Wishes(gpu_layers=7, tensor_split=(1, 2.5), devices=("CUDA1",))
    assert wishes_of(settings, ["cpu"]).devices == ("cpu",)


@pytest.mark.parametrize(
    ("wishes", "has_amx", "expected"),
    [({}, False, True), ({}, True, False), ({"repack": True}, True, True)],
    ids=["for most CPUs", "not where it crashes", "as asked"],
)
def test_repacking(wishes: Any, has_amx: bool, expected: bool) -> None:
    assert repacks(LlamaSettings(**wishes), machine(has_amx=has_amx)) is expected


@pytest.mark.parametrize("text", ['{"slots": 0}', '{"slots": 999}', '{"context_length": 1}', '{"context": 5}'])
def test_wrong_settings_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        read_settings(LlamaSettings, text)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        pytest.param({"cache_type_k": "q3"}, "cache_type_k must be one of f32, f16", id="unknown"),
        pytest.param({"flash_attention": "yes"}, "flash_attention must be one of auto, off, on", id="unknown switch"),
        pytest.param({"flash_attention": "off", "cache_type_v": "q4_0"}, "needs flash_attention", id="not together"),
    ],
)
def test_how_the_cache_is_kept_is_checked(wishes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LlamaSettings(**wishes)
