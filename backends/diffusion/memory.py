"""Where a pipeline fits: decided before anything is loaded, from the sizes of its parts. Pure.

whole on the GPU  >  sliced  >  one part at a time (model offload)  >  one layer at a time  >  the CPU
"""

from collections.abc import Mapping
from dataclasses import dataclass

from backends.diffusion.settings import DiffusionSettings
from backends.errors import OutOfMemoryError

SPARE = 256 * 1024 * 1024
"""Bytes that are left alone: contexts of libraries, fragments."""

BUFFERS = 12
"""How many layers' results of the decoder's last and largest level exist at once, about. Measured for Stable
Diffusion's; the level has as many channels as the configuration says."""

SLICED_PIXELS = 512 * 512
"""What is decoded at once when it is decoded in tiles."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to compute on, now. Bytes."""

    gpu: str = ""
    """"cuda", "mps", ...; empty: none."""
    gpu_free: int = 0
    free: int = 0
    """The machine's own memory."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a pipeline runs."""

    device: str
    offload: str
    """"none", "model" or "sequential"."""
    is_sliced: bool
    needed: int
    """Bytes on the device, about."""


def working_bytes(pixels: int, channels: int, element: int) -> int:
    """What drawing one picture takes beside the weights, about: decoding its latents is the peak."""
    return pixels * channels * element * BUFFERS


def place(
    parts: Mapping[str, int], *, pixels: int, channels: int, element: int, machine: Machine, settings: DiffusionSettings
) -> Placement:
    """The best place for parts of these sizes (bytes as they are computed with).

    Raises:
        OutOfMemoryError: there is none; the message has the numbers.
    """
    weights, largest = sum(parts.values()), max(parts.values(), default=0)
    whole = working_bytes(pixels, channels, element)
    sliced = working_bytes(min(pixels, SLICED_PIXELS), channels, element)
    wants_slicing = bool(settings.slicing)
    gpu = settings.device or machine.gpu
    if gpu and gpu != "cpu":
        ways = [
            *([] if wants_slicing else [("none", False, weights + whole)]),
            ("none", True, weights + sliced),
            ("model", True, largest + sliced),
            ("sequential", True, largest // 8 + sliced),
        ]
        for offload, is_sliced, needed in ways:
            if settings.offload not in ("auto", offload) or (is_sliced and settings.slicing is False):
                continue
            fits_here = offload == "none" or weights + SPARE <= machine.free
            if needed + SPARE <= machine.gpu_free and fits_here:
                return Placement(gpu, offload, is_sliced, needed)
        if settings.device:
            raise _too_large(ways[-1][2], machine.gpu_free, gpu)
    for is_sliced, needed in (
        (wants_slicing, weights + (sliced if wants_slicing else whole)),
        (True, weights + sliced),
    ):
        if needed + SPARE <= machine.free and not (is_sliced and settings.slicing is False):
            return Placement("cpu", "none", is_sliced, needed)
    raise _too_large(weights + sliced, machine.free, "the CPU")


def _too_large(needed: int, free: int, where: str) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"the model needs about {_shown(needed)} on {where}, and {_shown(free)} are free there;"
        " unload other models, or choose a smaller one"
    )


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
