"""`backend.yaml`: how a program that speaks `proto/backend.proto` becomes an engine. Pure.

    # engines/parrot/backend.yaml
    name: parrot
    description: Repeats what it hears
    command: ["{python}", parrot.py]      # run in this folder, with --address and --parent-pid added
    capabilities: [chat, completion]      # of its models, until a model says otherwise when it is loaded
    requirements: [markovify==0.9.4]      # optional: Python packages, put into an environment of its own
    protocol: 1                           # optional: the version of the backend protocol that it was written for

`{python}` is the node's own Python, or that of the engine's environment where it has requirements.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gallery.engine_table import BUILT_IN
from gallery.errors import CardError
from gallery.source import name_problem
from gallery.yaml_nodes import capabilities_of, line_of, pairs, root_node, text_of, texts_of

FILE_NAME = "backend.yaml"
PYTHON = "{python}"
PROTOCOL = 1
"""Of `proto/backend.proto`: raised when a backend of the version before could no longer be understood."""

_PROTOCOLS = frozenset(str(number) for number in range(1, PROTOCOL + 1))
_PACKAGE = re.compile(r"[A-Za-z0-9](?!.* -)[^\\$\x00-\x1f\x7f-\U0010ffff]*")
"""They become lines of a file for pip, where a dash after a space begins an option, $ and { name a variable of the
node's environment, and more than one character ends a line."""

_REQUIRED = ("name", "command", "capabilities")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """What a `backend.yaml` says."""

    name: str
    command: tuple[str, ...]
    capabilities: tuple[str, ...]
    description: str = ""
    requirements: tuple[str, ...] = ()
    """As pip takes them."""
    protocol: int = PROTOCOL


def parse_engine(text: str, path: Path) -> EngineFile:
    """The engine that `text` registers.

    Raises:
        CardError: it cannot be understood, or cannot run here; the message names file and line.
    """
    node = root_node(text, path)
    if node is None:
        raise CardError(path, f"is empty; needed are {', '.join(_REQUIRED)}")
    given = {key: _READERS[key](key, value, path) for key, value in pairs(node, path, frozenset(_READERS))}
    for key in _REQUIRED:
        if key not in given:
            raise CardError(path, f"{key} is missing", line_of(node))
    return EngineFile(**given)


def _name(key: str, node: yaml.Node, path: Path) -> str:
    name = text_of(key, node, path)
    if name_problem(name):
        raise CardError(path, f"{name[:100]!r} cannot be an engine's name: letters, digits and . _ + -", line_of(node))
    if name in BUILT_IN:
        raise CardError(path, f"the engine {name!r} comes with Shoal; choose another name", line_of(node))
    return name


def _command(key: str, node: yaml.Node, path: Path) -> tuple[str, ...]:
    words = texts_of(key, node, path)
    if not words:
        raise CardError(path, f"{key} names no program", line_of(node))
    return words


def _requirements(key: str, node: yaml.Node, path: Path) -> tuple[str, ...]:
    texts = texts_of(key, node, path)
    for text in texts:
        if not _PACKAGE.fullmatch(text):
            raise CardError(path, f"{text[:100]!r} names no package; write them as name==version", line_of(node))
    return texts


def _protocol(key: str, node: yaml.Node, path: Path) -> int:
    if not isinstance(node, yaml.ScalarNode) or node.value not in _PROTOCOLS:
        told = node.value if isinstance(node, yaml.ScalarNode) else "?"
        reason = f"{key} {told[:20]}: this version of Shoal speaks version {PROTOCOL} of the backend protocol"
        raise CardError(path, reason, line_of(node))
    return int(node.value)


_READERS: Mapping[str, Callable[[str, yaml.Node, Path], Any]] = {
    "name": _name,
    "description": text_of,
    "command": _command,
    "capabilities": capabilities_of,
    "requirements": _requirements,
    "protocol": _protocol,
}
