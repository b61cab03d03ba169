"""Cards as people write them: YAML in, checked entries out.

    # models/slow-echo.yaml
    engine: echo
    settings: {token_interval: 0.05}
    aliases: [slow]

    # models/poet.yaml: paths count from the folder of the card
    path: base.gguf
    lora: [{path: poems.gguf, scale: 0.8}]
    draft_model: small.gguf
    mmproj: mmproj-base.gguf

The index of built-in models holds several of these under `models:`, by name. Unknown keys are refused
with a suggestion, and every refusal names the line. What the settings mean is the engine's business.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gallery.card import ENGINES, name_problem
from gallery.errors import CardError
from gallery.yaml_nodes import (
    aliases_of,
    capabilities_of,
    flag_of,
    line_of,
    mapping_of,
    pairs,
    root_node,
    seconds_of,
    text_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardEntry:
    """What a card file says; everything it does not say is left to the catalog."""

    engine: str | None = None
    path: str | None = None
    lora: tuple[tuple[str, float], ...] = ()
    """Path and scale of each adapter."""
    draft_model: str | None = None
    mmproj: str | None = None
    """A projector: eyes or ears."""
    capabilities: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    aliases: tuple[str, ...] = ()
    keep_alive: float | None = None
    private: bool = False


def parse_card(text: str, path: Path, engines: Collection[str] = ENGINES) -> CardEntry:
    """The one card in `text`; `path` is for messages, `engines` are those that it may name.

    Raises:
        CardError: it cannot be understood.
    """
    node = root_node(text, path)
    if node is None:
        return CardEntry()
    entry = _entry(node, path)
    if entry.engine is not None and entry.engine not in engines:
        near = difflib.get_close_matches(entry.engine, engines, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(engines))}"
        line = next(line_of(value) for key, value in pairs(node, path) if key == "engine")
        raise CardError(path, f"unknown engine {entry.engine!r}; {hint}", line)
    return entry


def parse_index(text: str, path: Path) -> dict[str, CardEntry]:
    """The cards of an index by name.

    Raises:
        CardError: any of them cannot be understood.
    """
    node = root_node(text, path)
    if node is None:
        return {}
    entries: dict[str, CardEntry] = {}
    for _, models in pairs(node, path, known=frozenset({"models"})):
        for name, body in pairs(models, path):
            if problem := name_problem(name):
                raise CardError(path, problem, line_of(body))
            entries[name] = _entry(body, path)
    return entries


def _entry(node: yaml.Node, path: Path) -> CardEntry:
    given = {key: _READERS[key](key, value, path) for key, value in pairs(node, path, frozenset(_READERS))}
    return CardEntry(**given)


def _adapters(key: str, node: yaml.Node, path: Path) -> tuple[tuple[str, float], ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise CardError(path, f"{key} must be a list, as in [{{path: one.gguf, scale: 0.5}}]", line_of(node))
    return tuple(_adapter(key, item, path) for item in node.value)


def _adapter(key: str, node: yaml.Node, path: Path) -> tuple[str, float]:
    if isinstance(node, yaml.ScalarNode):
        return text_of(f"an entry of {key}", node, path), 1.0
    given = dict(pairs(node, path, frozenset({"path", "scale"})))
    if "path" not in given:
        raise CardError(path, f"an entry of {key} needs the path of an adapter's .gguf file", line_of(node))
    scale = _number("scale", given["scale"], path) if "scale" in given else 1.0
    return text_of("path", given["path"], path), scale


def _number(key: str, node: yaml.Node, path: Path) -> float:
    if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"-?\d{1,6}(\.\d{1,9})?", node.value, re.ASCII):
        return float(node.value)
    raise CardError(path, f"{key} must be a number, as in 0.5", line_of(node))


_READERS: Mapping[str, Callable[[str, yaml.Node, Path], Any]] = {
    "engine": text_of,
    "path": text_of,
    "lora": _adapters,
    "draft_model": text_of,
    "mmproj": text_of,
    "capabilities": capabilities_of,
    "settings": mapping_of,
    "description": text_of,
    "aliases": aliases_of,
    "keep_alive": seconds_of,
    "private": flag_of,
}
