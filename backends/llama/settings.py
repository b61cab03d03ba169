"""Settings of the llama engine, and what is chosen where a setting is absent.

The model's facts and the machine's go in, a plan comes out; nothing is asked of either here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.errors import InvalidValueError, OutOfMemoryError
from backends.llama.guessing import MOST_IN_STEP
from backends.llama.offload import Device, Wishes
from backends.llama.shape import Shape
from backends.llama.tool_formats import FORMATS

DEFAULT_CONTEXT = 4096
"""Tokens, where neither the settings nor the model's training ask for less. More costs memory for
every slot, used or not."""

DEFAULT_SLOTS = 8
MAX_SLOTS = 128
MIN_CONTEXT = 512
MAX_GUESSED = 32
"""Tokens guessed ahead at once; more never come true together."""


CACHE_SHARE = 0.5
"""Of the memory that is free once the weights are read, what the cache may take unasked. The rest is
for compute buffers, other models and everybody else on the machine."""


ASIDE_SHARE, ASIDE_FREE_SHARE = 1 / 2, 1 / 16
"""Of the cache, and of the memory that is free, what prompts put aside may take unasked."""

CACHE_TYPES = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2}
"""How numbers can be kept in the cache, and ggml's number for it."""

FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}

SMALL_WEIGHTS_BYTES = 64 * 2**20
"""Weights up to this are computed by one thread unless told otherwise: a token takes so little time
that handing work to other threads costs more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaSettings:
    """What a model's settings may say. Null or absent: the engine chooses."""

    context_length: int | None = None
    """Tokens of one request, prompt and answer together."""

    slots: int | None = None
    """Choices answered at once."""

    cache_tokens: int | None = None
    """Tokens that all slots together hold; default: every slot's full context. Less saves memory. When
    it runs short, the youngest answer pauses until there is room, and is computed again then."""

    queue: int = 64
    """Requests that may wait for a slot."""

    kept_prefixes: int = 8
    """Ended sequences whose prompt may be used again, beside those in the slots."""

    aside_tokens: int | None = None
    """Tokens of ended answers that are put aside into ordinary memory while others run, which computes faster than
    leaving them in the cache. Default: half of what the cache holds, in at most a sixteenth of the free memory; none
    where layers are on a GPU, which passes over idle tokens quickly. 0: they stay in the cache."""

    threads: int | None = None
    """CPU threads; default: physical cores this process may use, one for very small models."""

    gpu_layers: int | None = None
    """Layers on GPUs, whether they fit or not; -1: all, 0: none. Default: as many as fit, on as few GPUs as can be."""

    tensor_split: tuple[float, ...] = ()
    """How much of those layers each device takes, as proportions. Default: by free memory."""

    main_gpu: int | None = None
    """Which of the devices holds a model that fits on one, counted from 0. Default: the one with most room."""

    devices: tuple[str, ...] = ()
    """Names of the devices that may be used ("CUDA0"), in the order in which they take layers; "cpu": none. Default:
    all that llama.cpp was built for."""

    repack: bool | None = None
    """Lay quantized weights out anew for this CPU while loading, which computes faster. Default: yes,
    but not where llama.cpp was built for AMX: that code crashes with several compilers
    (ggml-org/llama.cpp#20824)."""

    cache_type_k: str = "f16"
    """How keys are kept in the cache. q8_0 halves its memory at hardly a loss, q4_0 halves it again at some."""

    cache_type_v: str = "f16"
    """The same for values. Quantized ones need flash attention."""

    flash_attention: str = "auto"
    """"on", "off", or "auto": where the model and the device can."""

    batch: int = 512
    """Tokens computed together (llama.cpp's ubatch)."""

    prompt_slice: int = 512
    """Prompt tokens of one step; a quarter of it while streams run."""

    context_shift: bool = False
    """Whether an answer goes on when its context is full: half of what follows the first `context_keep` tokens is
    dropped, and what is left is read again. Else it ends there, with "length". Nodes that continue each other's
    answers then need the same `context_length`."""

    context_keep: int = 1
    """Tokens at the beginning that a shift keeps; at most half of the context."""

    lookup_tokens: int = 0
    """Tokens guessed ahead where the text says what it said before (prompt lookup); 0: none. Pays where answers
    repeat their prompts: editing, quoting, extracting."""

    draft_tokens: int = 4
    """Tokens guessed ahead by the draft model, where the model's card names one."""

    chat_template: str | None = None
    """A Jinja template instead of the model's own."""

    tool_format: str | None = None
    """How the model writes tool calls (`tool_formats.py` lists the names); default: as its template says."""

    reasoning: str = "auto"
    """"auto": thinking is told apart from the answer where the template says how it is marked.
    "off": it is part of the text."""

    def __post_init__(self) -> None:
        if self.reasoning not in ("auto", "off"):
            raise ValueError(f'reasoning must be "auto" or "off", not {self.reasoning!r}')
        for name, known in (
            ("cache_type_k", CACHE_TYPES),
            ("cache_type_v", CACHE_TYPES),
            ("flash_attention", FLASH_ATTENTION),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.flash_attention == "off" and self.cache_type_v not in ("f32", "f16", "bf16"):
            raise ValueError(f"cache_type_v {self.cache_type_v!r} needs flash_attention")
        for name, least in (
            ("slots", 1),
            ("threads", 1),
            ("batch", 32),
            ("prompt_slice", 1),
            ("queue", 0),
            ("aside_tokens", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        for name in ("lookup_tokens", "draft_tokens"):
            if not 0 <= getattr(self, name) <= MAX_GUESSED:
                raise ValueError(f"{name} must be between 0 and {MAX_GUESSED}")
        if min(self.tensor_split, default=0) < 0:
            raise ValueError("tensor_split must not have negative parts")
        if self.context_keep < 0:
            raise ValueError(f"context_keep must be at least 0, not {self.context_keep}")
        if self.slots is not None and self.slots > MAX_SLOTS:
            raise ValueError(f"slots must be at most {MAX_SLOTS}, not {self.slots}")
        if not 0 <= self.kept_prefixes <= MAX_SLOTS:
            raise ValueError(f"kept_prefixes must be between 0 and {MAX_SLOTS}")
        if self.tool_format is not None and self.tool_format not in FORMATS:
            raise ValueError(f"tool_format must be one of {', '.join(sorted(FORMATS))}, not {self.tool_format!r}")
        if self.context_length is not None and self.context_length < 16:
            raise ValueError("context_length must be at least 16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a loaded model says about itself."""

    description: str
    trained_context: int
    layers: int
    weight_bytes: int
    cache_bytes_per_token: int
    """What each token of context takes, in the cache and in compute buffers."""

    fixed_bytes: int = 0
    """What a context takes however short it is."""

    can_share: bool
    """Parts of a sequence can be copied and removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine has to offer."""

    free_bytes: int
    cores: int
    devices: tuple[Device, ...] = ()
    """What layers can be put on, beside the CPU."""

    has_amx: bool = False
    """llama.cpp was built for AMX, and this CPU has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is chosen."""

    context_length: int
    slots: int
    cells: int
    """Tokens that all slots together hold."""

    threads: int
    context_bytes: int
    """Cache and compute buffers."""

    summary: str


def shape_of(settings: LlamaSettings, *, cells: int, slots: int, threads: int) -> Shape:
    """The context in which answers are computed."""
    return Shape(
        cells=cells,
        sequences=slots + settings.kept_prefixes,
        batch=max(settings.batch, slots + settings.prompt_slice + MOST_IN_STEP),
        micro_batch=settings.batch,
        threads=threads,
        cache_type_k=settings.cache_type_k,
        cache_type_v=settings.cache_type_v,
        flash_attention=settings.flash_attention,
    )


def wishes_of(settings: LlamaSettings, devices: Sequence[str]) -> Wishes:
    """Where layers are to go; `devices`, if any, are asked for by whoever loads the model."""
    return Wishes(
        gpu_layers=settings.gpu_layers,
        tensor_split=settings.tensor_split,
        main_gpu=settings.main_gpu,
        devices=tuple(devices) or settings.devices,
    )


def repacks(settings: LlamaSettings, machine: Machine) -> bool:
    """Whether weights are laid out anew for the CPU."""
    return not machine.has_amx if settings.repack is None else settings.repack


def aside_tokens(settings: LlamaSettings, machine: Machine, *, cells: int, cell_bytes: int, is_offloaded: bool) -> int:
    """How many tokens may be put aside, each as large as a cell of the cache."""
    if settings.aside_tokens is not None:
        return settings.aside_tokens
    if is_offloaded:
        return 0
    return int(min(cells * ASIDE_SHARE, machine.free_bytes * ASIDE_FREE_SHARE / max(1, cell_bytes)))


def check_weights_fit(path: str, file_bytes: int, machine: Machine) -> None:
    """Raises OutOfMemoryError where the weights are larger than what is free."""
    rooms = sum(device.room for device in machine.devices)
    if file_bytes > machine.free_bytes + rooms:
        raise OutOfMemoryError(
            f"{path} has {size_text(file_bytes)} and {size_text(machine.free_bytes)} of memory are free"
            + (f", {size_text(rooms)} on GPUs" if machine.devices else "")
        )


def threads_of(settings: LlamaSettings, weight_bytes: int, machine: Machine) -> int:
    """Threads that compute."""
    return settings.threads or (1 if weight_bytes <= SMALL_WEIGHTS_BYTES else machine.cores)


def choose(settings: LlamaSettings, model: ModelFacts, machine: Machine) -> Plan:
    """Fill in what the settings leave open, so that the cache fits the free memory.

    Raises:
        InvalidValueError: a longer context than the model was trained for.
        OutOfMemoryError: what the settings ask for does not fit.
    """
    wished = settings.context_length
    if wished is not None and model.trained_context and wished > model.trained_context:
        raise InvalidValueError(
            f"context_length {wished} is more than the {model.trained_context} tokens the model was trained for",
            param="settings_json",
        )
    context = wished or min(model.trained_context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    slots = settings.slots or DEFAULT_SLOTS
    budget = max(0.0, machine.free_bytes * CACHE_SHARE - model.fixed_bytes) / max(1, model.cache_bytes_per_token)
    while settings.slots is None and slots > 1 and _cells(settings, context, slots) > budget:
        slots //= 2
    while wished is None and context > MIN_CONTEXT and _cells(settings, context, slots) > budget:
        context //= 2
    cells = _cells(settings, context, slots)
    if cells < context:
        raise InvalidValueError(f"cache_tokens must be at least a context of {context}", param="settings_json")
    context_bytes = model.fixed_bytes + cells * model.cache_bytes_per_token
    if context_bytes > machine.free_bytes:
        raise OutOfMemoryError(
            f"a context of {context} tokens in {slots} slots takes {size_text(context_bytes)},"
            f" and {size_text(machine.free_bytes)} of memory are free"
        )
    shared = f"{cells} tokens of cache for all, " if cells < context * slots else ""
    threads = threads_of(settings, model.weight_bytes, machine)
    return Plan(
        context_length=context,
        slots=slots,
        cells=cells,
        threads=threads,
        context_bytes=context_bytes,
        summary=(
            f"{model.description}: {slots} slots of {context} tokens ({shared}"
            f"{size_text(machine.free_bytes)} were free for it), {threads} {'thread' if threads == 1 else 'threads'},"
            f" {model.layers} layers"
            + (", prompts are reused" if model.can_share else ", prompts are reused only whole")
        ),
    )


def _cells(settings: LlamaSettings, context: int, slots: int) -> int:
    """Tokens that the cache holds."""
    return min(settings.cache_tokens or context * slots, context * slots)


def size_text(count: int) -> str:
    """A number of bytes, for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
