"""What a model's card may say under `settings` for the diffusers engine. Pure."""

from dataclasses import dataclass

DEVICES = ("", "cpu", "cuda", "mps", "xpu")
DTYPES = ("", "float32", "float16", "bfloat16")
OFFLOADS = ("auto", "none", "model", "sequential")


@dataclass(frozen=True)
class DiffusionSettings:
    """All of it has a default; what a request says wins."""

    steps: int | None = None
    """Denoising steps; None: the pipeline's own number."""
    guidance: float | None = None
    """How strictly the prompt is followed; None: the pipeline's own."""
    negative_prompt: str = ""
    width: int = 0
    """Pixels; 0: what the model was made for."""
    height: int = 0
    strength: float | None = None
    """How far an edit may leave its source, 0 to 1."""
    scheduler: str = ""
    """See `backends.diffusion.schedulers`; empty: the model's own."""

    device: str = ""
    """Empty: a GPU if there is one and the model fits, else the CPU."""
    dtype: str = ""
    """Empty: bfloat16 or float16 on a GPU, float32 on a CPU."""
    offload: str = "auto"
    """Which parts wait in the machine's memory while a GPU computes: none, all but the busy one ("model"), or all but
    the busy layer ("sequential", slow). auto: as little as makes it fit."""
    slicing: bool | None = None
    """Attention and decoding piece by piece: less memory, somewhat slower. None: when memory is short."""
    threads: int = 0
    """On a CPU; 0: one for each core."""

    max_pixels: int = 4 * 1024 * 1024
    """Of one picture. It bounds what one request may cost."""
    max_steps: int = 250
    queue: int = 16
    """Requests that may wait; one is drawn at a time."""

    allow_pickle: bool = False
    """Read pickled checkpoints, which can run any program."""
    pipeline: str = ""
    """The diffusers class of a single-file checkpoint, e.g. StableDiffusionXLPipeline; empty: by what is in it."""
    config: str = ""
    """For a single-file checkpoint: the folder with the configuration (a pipeline folder, weights not needed)."""

    def __post_init__(self) -> None:
        for name, known in (("device", DEVICES), ("dtype", DTYPES), ("offload", OFFLOADS)):
            value = getattr(self, name)
            if (value.partition(":")[0] if name == "device" else value) not in known:
                raise ValueError(f"{name} must be one of {', '.join(filter(None, known))}, not {value!r}")
        if self.steps is not None and not 1 <= self.steps <= self.max_steps:
            raise ValueError(f"steps must be between 1 and {self.max_steps}")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ValueError("strength must be above 0 and at most 1")
        if min(self.width, self.height, self.queue, self.threads) < 0 or min(self.max_pixels, self.max_steps) < 1:
            raise ValueError("sizes and counts must not be negative")
