"""What is in a picture, found by plain means: the background is the colour of the border, things are what differs from
it and hangs together, a colour is the nearest that has a name, a shape is the one that covers the thing best."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gallery.cuttlefish.scenes import COLOURS, SHAPES, outline

Mask = NDArray[np.bool_]

DIFFERS = 60
"""Distance in RGB at which a pixel is not background: the nearest two colours with names are 88 apart."""
SMALLEST = 40
"""Pixels of a thing. Less is a speck."""
COVERS = 0.75
"""A shape is recognised if what it and the thing share is this part of what both cover."""
EVEN = 0.75
"""A thing has a colour if this part of it, the edge aside, is as near to its median as background is to background."""
_BOX = 48


@dataclass(frozen=True, slots=True)
class Thing:
    """Something seen."""

    colour: str | None
    """None: of many colours."""
    shape: str | None
    """None: none of those with names."""
    pixels: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A whole picture."""

    background: str
    things: tuple[Thing, ...]
    """The largest first."""


def see(picture: NDArray[np.uint8] | NDArray[np.float32]) -> Seen:
    """What is in it; [height, width, 3], 0 to 255."""
    pixels = picture.astype(np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(border, axis=0)
    differs = np.linalg.norm(pixels - ground, axis=-1) > DIFFERS
    things = [
        Thing(_colour(pixels[inner(mask)]), nearest_shape(mask), int(mask.sum()))
        for mask in connected(differs)
        if mask.sum() >= SMALLEST
    ]
    return Seen(nearest_colour(ground), tuple(sorted(things, key=lambda thing: -thing.pixels)))


def _colour(pixels: NDArray[np.float64]) -> str | None:
    middle = np.median(pixels, axis=0)
    near = np.linalg.norm(pixels - middle, axis=-1) <= DIFFERS
    return nearest_colour(middle) if near.mean() >= EVEN else None


def nearest_colour(rgb: NDArray[np.float64]) -> str:
    """Its name."""
    return min(COLOURS, key=lambda name: float(np.linalg.norm(rgb - np.array(COLOURS[name]))))


def nearest_shape(mask: Mask) -> str | None:
    """The shape that, drawn in the same box, covers it best."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = Image.fromarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8) * 255)
    shares = box.width / box.height
    if not 0.7 < shares < 1.4:
        return None
    seen = np.asarray(box.resize((_BOX, _BOX), Image.Resampling.BILINEAR)) > 127
    covers = {shape: (seen & form).sum() / (seen | form).sum() for shape, form in _forms().items()}
    best = max(SHAPES, key=covers.__getitem__)
    return best if covers[best] >= COVERS else None


def connected(mask: Mask) -> Iterator[Mask]:
    """Its parts, whose pixels touch along a side."""
    left = mask.copy()
    while left.any():
        part = np.zeros_like(mask)
        waiting = [tuple(np.argwhere(left)[0])]
        left[waiting[0]] = False
        while waiting:
            y, x = waiting.pop()
            part[y, x] = True
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1] and left[near]:
                    left[near] = False
                    waiting.append(near)
        yield part


def inner(mask: Mask) -> Mask:
    """Without its edge, which mixes with the background; all of it if nothing else is left."""
    padded = np.pad(mask, 1)
    kept = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return kept if kept.any() else mask


@cache
def _forms() -> dict[str, Mask]:
    return {shape: _form(shape) for shape in SHAPES}


def _form(shape: str) -> Mask:
    corners = np.array(outline(shape))
    corners = (corners - corners.min(axis=0)) / np.ptp(corners, axis=0)
    image = Image.new("L", (_BOX * 4, _BOX * 4))
    ImageDraw.Draw(image).polygon([(x * _BOX * 4, y * _BOX * 4) for x, y in corners], fill=255)
    return np.asarray(image.resize((_BOX, _BOX), Image.Resampling.BOX)) > 127
