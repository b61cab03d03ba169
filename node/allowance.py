"""What this machine may give: its devices, less what its owner keeps (`--memory`).

The limit counts where models go: on the GPUs together, if there are any that llama.cpp can use, or else in the
machine's memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from mesh.types import Device
from node.devices import detect
from node.machine_memory import llama_offloads


class Allowance:
    """The devices as this node offers them. `used` tells how many bytes models of ours take already."""

    def __init__(
        self,
        limit: int,
        used: Callable[[], int] = lambda: 0,
        *,
        devices: Callable[[], Sequence[Device]] = detect,
        offloads: Callable[[], bool] = llama_offloads,
    ) -> None:
        """`limit`: bytes; 0: all that is there."""
        self.limit = limit
        """Bytes; 0: none."""
        self.used = used
        self._devices = devices
        self._offloads = offloads

    def devices(self) -> tuple[Device, ...]:
        """As they are now. Costs a look at each."""
        found = tuple(self._devices())
        return limited(found, self.limit, self.used(), on_gpu=self._offloads()) if self.limit else found


def limited(devices: Sequence[Device], limit: int, used: int, *, on_gpu: bool) -> tuple[Device, ...]:
    """`devices`, as if those where models go had `limit` bytes together, of which `used` are taken."""
    counted = [d for d in devices if d.kind != "cpu"] if on_gpu else []
    counted = counted or [d for d in devices if d.kind == "cpu"]
    total, free = limit, max(0, limit - used)
    found = []
    for device in devices:
        if device in counted:
            device = replace(
                device, memory_total=min(device.memory_total, total), memory_free=min(device.memory_free, free)
            )
            total, free = total - device.memory_total, free - device.memory_free
        found.append(device)
    return tuple(found)
