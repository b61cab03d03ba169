"""Reading YAML that people write: every refusal names file, line and key. Pure.

Works on YAML's nodes rather than on values, because only those know their lines. A reader takes the key, its node and
the file's path, and returns the value or raises CardError.
"""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gallery.card import CAPABILITIES, name_problem
from gallery.errors import CardError

MAX_CARD_BYTES = 256 * 1024
"""Larger is no card: somebody dropped the wrong file."""


class _NoAliases(yaml.SafeLoader):
    """YAML without `*aliases`: a dozen lines of them can stand for more than fits into memory."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not taken here", problem_mark=mark)
        return super().compose_node(parent, index)


def root_node(text: str, path: Path) -> yaml.Node | None:
    if len(text) > MAX_CARD_BYTES:
        raise CardError(path, f"is too large for a model card (limit {MAX_CARD_BYTES // 1024} KiB)")
    try:
        return yaml.compose(text, Loader=_NoAliases)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else None
        raise CardError(path, f"is not valid YAML: {exc.problem}", line) from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise CardError(path, f"is not valid YAML: {exc}") from exc


def pairs(node: yaml.Node, path: Path, known: frozenset[str] | None = None) -> list[tuple[str, yaml.Node]]:
    """Keys and values of a mapping; every key once, and a known one."""
    if not isinstance(node, yaml.MappingNode):
        raise CardError(path, "expected `key: value` lines", line_of(node))
    items: list[tuple[str, yaml.Node]] = []
    seen: set[str] = set()
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
        if known is not None and key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise CardError(path, f"unknown key {key!r}; {hint}", line_of(key_node))
        if key in seen:
            raise CardError(path, f"{key!r} is there twice", line_of(key_node))
        seen.add(key)
        items.append((key, value))
    return items


def text_of(key: str, node: yaml.Node, path: Path) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str" or not node.value:
        raise CardError(path, f"{key} must be a text", line_of(node))
    return str(node.value)


def texts_of(key: str, node: yaml.Node, path: Path) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise CardError(path, f"{key} must be a list, as in [one, two]", line_of(node))
    return tuple(text_of(f"an entry of {key}", item, path) for item in node.value)


def capabilities_of(key: str, node: yaml.Node, path: Path) -> tuple[str, ...]:
    texts = texts_of(key, node, path)
    for text in texts:
        if text not in CAPABILITIES:
            raise CardError(
                path, f"unknown capability {text!r}; known are {', '.join(sorted(CAPABILITIES))}", line_of(node)
            )
    return texts


def aliases_of(key: str, node: yaml.Node, path: Path) -> tuple[str, ...]:
    texts = texts_of(key, node, path)
    for text in texts:
        if problem := name_problem(text):
            raise CardError(path, problem, line_of(node))
    return texts


def mapping_of(key: str, node: yaml.Node, path: Path) -> Mapping[str, Any]:
    pairs(node, path)
    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_document(node)
        json.dumps(value, allow_nan=False)
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as exc:
        reason = f"{key} may hold texts, numbers, true, false, null, lists and mappings"
        raise CardError(path, reason, line_of(node)) from exc
    assert isinstance(value, dict)
    return value


def flag_of(key: str, node: yaml.Node, path: Path) -> bool:
    if not isinstance(node, yaml.ScalarNode) or node.value not in ("true", "false"):
        raise CardError(path, f"{key} must be true or false", line_of(node))
    return bool(node.value == "true")


def seconds_of(key: str, node: yaml.Node, path: Path) -> float:
    # Compared as a text first: YAML's own numbers include 1:30, .inf and 0o17.
    if isinstance(node, yaml.ScalarNode) and re.fullmatch(r"-?\d{1,9}(\.\d+)?", node.value, re.ASCII):
        return float(node.value)
    raise CardError(path, f"{key} must be a number of seconds; a negative one means for good", line_of(node))


def line_of(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
