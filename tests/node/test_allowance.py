"""What a machine gives when its owner keeps some."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.types import Device
from node.allowance import Allowance, limited

CPU = Device("cpu", "CPU", 16_000, 9_000)
GPUS = Device("cuda", "one", 8_000, 8_000), Device("cuda", "two", 8_000, 6_000)


def test_the_limit_counts_where_models_go() -> None:
    on_gpu = limited((CPU, *GPUS), 10_000, 0, on_gpu=True)
    assert [(d.memory_total, d.memory_free) for d in on_gpu] == [(16_000, 9_000), (8_000, 8_000), (2_000, 2_000)]

    on_cpu = limited((CPU, *GPUS), 10_000, 4_000, on_gpu=False)
    assert [(d.memory_total, d.memory_free) for d in on_cpu] == [(10_000, 6_000), (8_000, 8_000), (8_000, 6_000)]


def test_without_a_limit_everything_is_given() -> None:
    assert Allowance(0, devices=lambda: (CPU, *GPUS), offloads=lambda: True).devices() == (CPU, *GPUS)


@given(st.integers(1, 40_000), st.integers(0, 40_000), st.booleans())
def test_never_more_than_the_limit_nor_than_is_there(limit: int, used: int, on_gpu: bool) -> None:
    found = limited((CPU, *GPUS), limit, used, on_gpu=on_gpu)
    counted = [d for d in found if (d.kind != "cpu") == on_gpu]
    assert sum(d.memory_total for d in counted) <= limit
    assert sum(d.memory_free for d in counted) <= max(0, limit - used)
    for device, real in zip(found, (CPU, *GPUS), strict=True):
        assert device.memory_total <= real.memory_total
        assert device.memory_free <= real.memory_free
