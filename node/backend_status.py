"""What a backend is to run, and how it is doing: values only."""

from dataclasses import dataclass

from backends.rpc import backend_pb2 as pb
from mesh.types import DeviceShare
from node.lifecycle import State
from node.shards import Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """What to run: one model with one set of weights and settings."""

    name: str
    digest: str
    engine: str
    path: str = ""
    settings_json: str = "{}"
    capabilities: tuple[str, ...] = ()
    """As known before the model is loaded."""
    created: int = 0
    """Unix seconds."""
    projector_path: str = ""
    adapter_paths: tuple[str, ...] = ()
    adapter_scales: tuple[float, ...] = ()
    draft_path: str = ""
    devices: tuple[str, ...] = ()
    memory_needed: int = 0
    """Bytes, about; 0: not known."""
    least_memory: int = 0
    """Bytes that it needs at the very least: its weights."""
    wish: Wish | None = None
    """How it may be split over several machines; None: not at all."""
    lending: pb.Lending | None = None
    """For a lender process: what it lends to whom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """One backend at one moment."""

    name: str
    digest: str
    engine: str
    state: State
    created: int = 0
    devices: tuple[str, ...] = ()
    shares: tuple[DeviceShare, ...] = ()
    """How the engine split it over devices beside the CPU."""
    capabilities: tuple[str, ...] = ()
    slots: int = 0
    busy: int = 0
    queued: int = 0
    calls: int = 0
    """Calls of this node that are running, by the node's own count."""
    context_length: int = 0
    load_fraction: float = 0.0
    load_stage: str = ""
    prompt_tokens_per_second: float = 0.0
    tokens_per_second: float = 0.0
    first_token_seconds: float = 0.0
    memory_bytes: int = 0
    prefix_sketch: bytes = b""
    summary: str = ""
    pid: int | None = None
    crashes: int = 0
    failure: str = ""
    """Why it could not be loaded, if that is how it ended."""
    last_used_at: float = 0.0
    """By the event loop's clock."""
