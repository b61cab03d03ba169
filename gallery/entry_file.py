"""Entries of a gallery as people write them: one YAML file per model, and an index that names them. Pure.

    # entries/qwen3-4b.yaml
    description: Qwen's dense model of 4B parameters, with thinking
    licence: Apache-2.0
    capabilities: [chat, completion, tools]
    parameters: 4B
    hub: Qwen/Qwen3-4B-GGUF        # its files, sizes and digests are the hub's own, asked for at install time

    # index.yaml
    name: shoal
    entries: [qwen3-4b, …]

Nothing in an entry is a guess: what is not written is resolved, and pinned, when the model is installed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gallery.errors import CardError
from gallery.source import name_problem
from gallery.yaml_nodes import aliases_of, capabilities_of, line_of, mapping_of, pairs, root_node, text_of, texts_of

ENGINES = frozenset({"llama", "diffusers", "whisper", "speech"})
"""Engines by name; an entry may wait for one that is still to come."""

MAX_ENTRIES = 10_000

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_PARAMETERS = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)([MBT])(?:-A(\d{1,4}(?:\.\d{1,3})?)([MB]))?\Z")
_REQUIRED = ("description", "capabilities", "hub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model that can be installed by name."""

    name: str
    description: str
    capabilities: tuple[str, ...]
    hub: str
    """The repository with its files."""
    licence: str = ""
    """Where it is not said, the hub's own word is pinned at install time."""
    engine: str = "llama"
    aliases: tuple[str, ...] = ()
    parameters: str = ""
    """As people write it: 600M, 4B, 30B-A3B. The estimate of `search` rests on it."""
    revision: str = "main"
    file: str = ""
    """The quantization or file to take where nobody asks for one, instead of the largest that fits."""
    context: int = 0
    """Tokens that should fit beside the weights; 0: the usual."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For the engine, into the model's card."""
    gallery: str = ""
    """Where the entry comes from."""


@dataclass(frozen=True, slots=True)
class Index:
    """What a gallery says about itself."""

    name: str
    entries: tuple[str, ...]


def parse_entry(text: str, path: Path, name: str) -> Entry:
    """The entry in `text`, which is for the model `name`.

    Raises:
        CardError: it cannot be understood; the message names file and line.
    """
    node = root_node(text, path)
    if problem := name_problem(name):
        raise CardError(path, problem)
    if node is None:
        raise CardError(path, f"is empty; needed are {', '.join(_REQUIRED)}")
    given = {key: _READERS[key](key, value, path) for key, value in pairs(node, path, frozenset(_READERS))}
    for key in _REQUIRED:
        if key not in given:
            raise CardError(path, f"{key} is missing", line_of(node))
    return Entry(name=name, **given)


def parse_gallery(text: str, path: Path) -> Index:
    """The index of a gallery.

    Raises:
        CardError: it cannot be understood; the message names file and line.
    """
    node = root_node(text, path)
    if node is None:
        raise CardError(path, "is empty; needed are name and entries")
    found = dict(pairs(node, path, frozenset({"name", "entries"})))
    if "name" not in found or "entries" not in found:
        raise CardError(path, "needed are name and entries", line_of(node))
    entries = found["entries"]
    names = texts_of("entries", entries, path)
    if len(names) > MAX_ENTRIES:
        raise CardError(path, f"names {len(names)} entries; at most {MAX_ENTRIES}", line_of(entries))
    seen: set[str] = set()
    for name, item in zip(names, entries.value, strict=True):
        if problem := name_problem(name):
            raise CardError(path, problem, line_of(item))
        if name in seen:
            raise CardError(path, f"{name!r} is there twice", line_of(item))
        seen.add(name)
    return Index(text_of("name", found["name"], path), names)


def _one_of(choices: frozenset[str]) -> Callable[[str, yaml.Node, Path], str]:
    def read(key: str, node: yaml.Node, path: Path) -> str:
        text = text_of(key, node, path)
        if text not in choices:
            raise CardError(path, f"{key} must be one of {', '.join(sorted(choices))}, not {text!r}", line_of(node))
        return text

    return read


def _matching(form: re.Pattern[str], wanted: str) -> Callable[[str, yaml.Node, Path], str]:
    def read(key: str, node: yaml.Node, path: Path) -> str:
        text = text_of(key, node, path)
        if not form.match(text):
            raise CardError(path, f"{key} must be {wanted}, not {text!r}", line_of(node))
        return text

    return read


def _tokens(key: str, node: yaml.Node, path: Path) -> int:
    if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"\d{3,8}", node.value, re.ASCII):
        return int(node.value)
    raise CardError(path, f"{key} must be a number of tokens", line_of(node))


_READERS: Mapping[str, Callable[[str, yaml.Node, Path], Any]] = {
    "description": text_of,
    "licence": text_of,
    "capabilities": capabilities_of,
    "engine": _one_of(ENGINES),
    "aliases": aliases_of,
    "parameters": _matching(_PARAMETERS, "a size like 600M, 4B or 30B-A3B"),
    "hub": _matching(_REPOSITORY, "a repository, ORG/REPO"),
    "revision": text_of,
    "file": text_of,
    "context": _tokens,
    "settings": mapping_of,
}
