"""Finding entries, and saying where they would run. Pure."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from gallery.entry_file import Entry
from gallery.variants import CACHE_CONTEXT, memory_needed


def matching(entries: Iterable[Entry], text: str) -> list[Entry]:
    """Those that have every word of `text` somewhere; those that have it in their name first."""
    words = text.lower().split()
    found = [entry for entry in entries if all(word in _haystack(entry) for word in words)]
    return sorted(found, key=lambda entry: (not all(word in entry.name.lower() for word in words), entry.name))


def fits(size: int, free_by_node: Mapping[str, Sequence[tuple[str, int]]]) -> list[str]:
    """Nodes and devices whose free memory would hold a model of `size` bytes, as texts; none where it is unknown."""
    if not size:
        return []
    needed = memory_needed(size, CACHE_CONTEXT)
    return [
        f"{node} ({device})"
        for node, devices in sorted(free_by_node.items())
        for device, free in devices
        if free >= needed
    ]


class HasKind(Protocol):
    """Something one can compute on."""

    @property
    def kind(self) -> str: ...


def device_labels(devices: Sequence[HasKind]) -> list[str]:
    """What people call a node's devices: CPU, GPU 0, GPU 1."""
    count = itertools.count()
    return ["CPU" if device.kind == "cpu" else f"GPU {next(count)}" for device in devices]


def _haystack(entry: Entry) -> str:
    texts = (entry.name, *entry.aliases, entry.description, entry.licence, entry.hub, *entry.capabilities)
    return " ".join(texts).lower()
