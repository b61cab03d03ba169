"""One model: its name, what runs it, where its weights are. Valid once constructed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MAX_NAME_LENGTH = 200

CAPABILITIES = frozenset(
    [
        *("chat", "completion", "embedding", "rerank", "tools"),
        *("vision", "audio_in", "image", "transcription", "speech"),
    ]
)
"""The words of `LoadedModel.capabilities` in `proto/backend.proto`."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: a file of changes to a model's weights."""

    path: Path
    scale: float = 1.0
    """How strongly it counts."""


ENGINES = ("echo", "llama", "speech", "whisper", "diffusers")
"""What a model can run on: the engines of `backends.__main__`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known of a model before it is loaded."""

    name: str
    engine: str
    path: Path | None = None
    """Weights: a file or a folder. Of several parts, the first. None where the engine needs none."""
    adapters: tuple[Adapter, ...] = ()
    projector: Path | None = None
    """Eyes or ears (mmproj) for pictures or sounds in prompts."""
    draft: Path | None = None
    """A small model that guesses ahead for this one."""
    capabilities: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For the engine, which checks them when it loads."""
    description: str = ""
    aliases: tuple[str, ...] = ()
    """Other names it answers to."""
    keep_alive: float | None = None
    """Seconds it stays loaded unused; negative: for good. None: as the node's setting says."""
    private: bool = False
    """Its files are not given to other nodes."""
    created: int = 0
    """Unix seconds: when it came to this machine."""
    source: Literal["built-in", "folder", "store"] = "folder"
    context_length: int = 0
    """Tokens it was made for, as far as known."""
    parameters: int = 0
    """Number of weights, as far as known."""

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if problem := name_problem(name):
                raise ValueError(problem)
        unknown = sorted(set(self.capabilities) - CAPABILITIES)
        if unknown:
            known = ", ".join(sorted(CAPABILITIES))
            raise ValueError(f"unknown capability {unknown[0]!r}; known are {known}")


def name_problem(name: str) -> str | None:
    """Why `name` cannot be a model's name; None if it can."""
    if not name:
        return "a model's name must not be empty"
    if len(name) > MAX_NAME_LENGTH:
        return f"a model's name may have {MAX_NAME_LENGTH} characters, this one has {len(name)}"
    if not name.isprintable() or name != name.strip():
        return f"model name {name!r} has characters that cannot be seen"
    return None
