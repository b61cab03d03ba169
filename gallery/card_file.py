"""Cards as people write them: YAML in, checked entries out.

    # models/slow-echo.yaml
    engine: echo
    settings: {token_interval: 0.05}
    aliases: [slow]

    # models/poet.yaml: paths count from the folder of the card
    path: base.gguf
    lora: [{path: poems.gguf, scale: 0.8}]
    draft_model: small.gguf

The index of built-in models holds several of these under `models:`, by name. Unknown keys are refused
with a suggestion, and every refusal names the line. What the settings mean is the engine's business.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gallery.card import CAPABILITIES, ENGINES, name_problem
from gallery.errors import CardError

MAX_CARD_BYTES = 256 * 1024
"""Larger is no card: somebody dropped the wrong file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardEntry:
    """What a card file says; everything it does not say is left to the catalog."""

    engine: str | None = None
    path: str | None = None
    lora: tuple[tuple[str, float], ...] = ()
    """Path and scale of each adapter."""
    draft_model: str | None = None
    capabilities: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    aliases: tuple[str, ...] = ()
    keep_alive: float | None = None


class _NoAliases(yaml.SafeLoader):
    """YAML without `*aliases`: a dozen lines of them can stand for more than fits into memory."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not taken here", problem_mark=mark)
        return super().compose_node(parent, index)


def parse_card(text: str, path: Path) -> CardEntry:
    """The one card in `text`; `path` is for messages.

    Raises:
        CardError: it cannot be understood.
    """
    node = _root(text, path)
    return CardEntry() if node is None else _entry(node, path)


def parse_index(text: str, path: Path) -> dict[str, CardEntry]:
    """The cards of an index by name.

    Raises:
        CardError: any of them cannot be understood.
    """
    node = _root(text, path)
    if node is None:
        return {}
    entries: dict[str, CardEntry] = {}
    for _, models in _items(node, path, known=frozenset({"models"})):
        for name, body in _items(models, path):
            if problem := name_problem(name):
                raise CardError(path, problem, _line(body))
            entries[name] = _entry(body, path)
    return entries


def _root(text: str, path: Path) -> yaml.Node | None:
    if len(text) > MAX_CARD_BYTES:
        raise CardError(path, f"is too large for a model card (limit {MAX_CARD_BYTES // 1024} KiB)")
    try:
        return yaml.compose(text, Loader=_NoAliases)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else None
        raise CardError(path, f"is not valid YAML: {exc.problem}", line) from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise CardError(path, f"is not valid YAML: {exc}") from exc


def _entry(node: yaml.Node, path: Path) -> CardEntry:
    given = {key: _READERS[key](key, value, path) for key, value in _items(node, path, frozenset(_READERS))}
    return CardEntry(**given)


def _items(node: yaml.Node, path: Path, known: frozenset[str] | None = None) -> list[tuple[str, yaml.Node]]:
    """Keys and values of a mapping; every key once, and a known one."""
    if not isinstance(node, yaml.MappingNode):
        raise CardError(path, "expected `key: value` lines", _line(node))
    items: list[tuple[str, yaml.Node]] = []
    seen: set[str] = set()
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
        if known is not None and key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise CardError(path, f"unknown key {key!r}; {hint}", _line(key_node))
        if key in seen:
            raise CardError(path, f"{key!r} is there twice", _line(key_node))
        seen.add(key)
        items.append((key, value))
    return items


def _text(key: str, node: yaml.Node, path: Path) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str" or not node.value:
        raise CardError(path, f"{key} must be a text", _line(node))
    return str(node.value)


def _engine(key: str, node: yaml.Node, path: Path) -> str:
    engine = _text(key, node, path)
    if engine not in ENGINES:
        near = difflib.get_close_matches(engine, ENGINES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(ENGINES)}"
        raise CardError(path, f"unknown engine {engine!r}; {hint}", _line(node))
    return engine


def _texts(key: str, node: yaml.Node, path: Path) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise CardError(path, f"{key} must be a list, as in [one, two]", _line(node))
    return tuple(_text(f"an entry of {key}", item, path) for item in node.value)


def _capabilities(key: str, node: yaml.Node, path: Path) -> tuple[str, ...]:
    texts = _texts(key, node, path)
    for text in texts:
        if text not in CAPABILITIES:
            raise CardError(
                path, f"unknown capability {text!r}; known are {', '.join(sorted(CAPABILITIES))}", _line(node)
            )
    return texts


def _adapters(key: str, node: yaml.Node, path: Path) -> tuple[tuple[str, float], ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise CardError(path, f"{key} must be a list, as in [{{path: one.gguf, scale: 0.5}}]", _line(node))
    return tuple(_adapter(key, item, path) for item in node.value)


def _adapter(key: str, node: yaml.Node, path: Path) -> tuple[str, float]:
    if isinstance(node, yaml.ScalarNode):
        return _text(f"an entry of {key}", node, path), 1.0
    given = dict(_items(node, path, frozenset({"path", "scale"})))
    if "path" not in given:
        raise CardError(path, f"an entry of {key} needs the path of an adapter's .gguf file", _line(node))
    scale = _number("scale", given["scale"], path) if "scale" in given else 1.0
    return _text("path", given["path"], path), scale


def _number(key: str, node: yaml.Node, path: Path) -> float:
    if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"-?\d{1,6}(\.\d{1,9})?", node.value, re.ASCII):
        return float(node.value)
    raise CardError(path, f"{key} must be a number, as in 0.5", _line(node))


def _aliases(key: str, node: yaml.Node, path: Path) -> tuple[str, ...]:
    texts = _texts(key, node, path)
    for text in texts:
        if problem := name_problem(text):
            raise CardError(path, problem, _line(node))
    return texts


def _settings(key: str, node: yaml.Node, path: Path) -> Mapping[str, Any]:
    _items(node, path)
    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_document(node)
        json.dumps(value, allow_nan=False)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as exc:
        reason = f"{key} may hold texts, numbers, true, false, null, lists and mappings"
        raise CardError(path, reason, _line(node)) from exc
    assert isinstance(value, dict)
    return value


def _seconds(key: str, node: yaml.Node, path: Path) -> float:
    # Compared as a text first: YAML's own numbers include 1:30, .inf and 0o17.
    if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"-?\d{1,9}(\.\d+)?", node.value, re.ASCII):
        return float(node.value)
    raise CardError(path, f"{key} must be a number of seconds; a negative one means for good", _line(node))


_READERS: Mapping[str, Callable[[str, yaml.Node, Path], Any]] = {
    "engine": _engine,
    "path": _text,
    "lora": _adapters,
    "draft_model": _text,
    "capabilities": _capabilities,
    "settings": _settings,
    "description": _text,
    "aliases": _aliases,
    "keep_alive": _seconds,
}


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
