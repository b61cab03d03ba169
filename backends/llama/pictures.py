"""A picture file becomes pixels, within bounds: the file may come from anybody."""

import io
import warnings
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from backends.errors import InvalidValueError

Pixels = npt.NDArray[np.uint8]

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

MAX_PIXELS = 40_000_000
"""Of one picture. A file of some kilobytes can say that it holds gigabytes; decoding this many takes up to 0.5 GB for
a moment, and one picture is decoded at a time."""

MAX_ALL_PIXELS = 400_000_000
"""Of the pictures of a prompt, which are decoded until all are read: 1.2 GB, or 32 photographs of 12 megapixels."""

MAX_RATIO = 200
"""Of the longer side to the shorter one, as in Qwen-VL's own preprocessing: beyond it, nothing is left to see."""


Image.MAX_IMAGE_PIXELS = None  # Ours is checked instead: Pillow's says nothing of what was sent.


def read_picture(data: bytes, where: str) -> Pixels:
    """Height x width x RGB. `where` says in messages which picture it is. The first frame of an animation;
    turned upright as its EXIF says; what is transparent becomes white.

    Raises:
        InvalidValueError: it is no picture, is damaged, or unfolds into too much.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.width, image.height, where)
                image.load()
                upright = ImageOps.exif_transpose(image)
                return np.ascontiguousarray(np.asarray(_on_white(upright), dtype=np.uint8))
    except InvalidValueError:
        raise
    except Exception as exc:  # A parser of hostile bytes: whatever it stumbles over, the file is at fault.
        reason = "is no PNG, JPEG, WebP, GIF or BMP file" if isinstance(exc, UnidentifiedImageError) else str(exc)
        raise InvalidValueError(f"{where} cannot be read: {reason or type(exc).__name__}", param="messages") from exc


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > MAX_PIXELS:
        raise InvalidValueError(
            f"{where} has {width} x {height} pixels; at most {MAX_PIXELS} are taken, make it smaller", param="messages"
        )
    if not width or not height or max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidValueError(
            f"{where} has {width} x {height} pixels; one side may be at most {MAX_RATIO} times the other",
            param="messages",
        )


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")
