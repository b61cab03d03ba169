"""Pictures that come with a request: opened within bounds, and made to fit a drawing.

picture and mask (edit)      where the mask is transparent, or white if it has no transparency, is painted anew
picture (edit)               its own transparent places are painted anew; without any, all of it is redrawn
"""

import io
import math
import warnings

from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from backends.errors import InvalidValueError

MAX_SOURCE_PIXELS = 40_000_000
"""Of a picture that comes with a request: it takes four bytes a pixel while it is scaled down."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def open_picture(data: bytes, param: str) -> Image.Image:
    """The picture in a file, as RGB or RGBA, the right way up.

    Raises:
        InvalidValueError: it is none, broken, or too large.
    """
    if not data:
        raise InvalidValueError(f"the file of '{param}' is empty", param=param)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = picture.size
            if width * height > MAX_SOURCE_PIXELS:
                raise InvalidValueError(
                    f"the picture of '{param}' is {width} x {height}; at most {MAX_SOURCE_PIXELS // 10**6} megapixels"
                    " are taken",
                    param=param,
                )
            picture.load()
    except InvalidValueError:
        raise
    except UnidentifiedImageError as exc:
        raise InvalidValueError(
            f"the file of '{param}' is no PNG, JPEG, WebP, GIF or BMP picture", param=param
        ) from exc
    except Exception as exc:  # Pillow's decoders raise whatever they meet.
        raise InvalidValueError(f"the picture of '{param}' is damaged: {exc}", param=param) from exc
    ImageOps.exif_transpose(picture, in_place=True)
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def mask_of(picture: Image.Image, mask: Image.Image | None) -> Image.Image | None:
    """What is painted anew, in white; None: everything.

    Raises:
        InvalidValueError: the mask has another size than the picture.
    """
    if mask is None:
        return _holes(picture)
    if mask.size != picture.size:
        raise InvalidValueError(
            f"the mask is {mask.width} x {mask.height} and the picture {picture.width} x {picture.height};"
            " they must be of one size",
            param="mask",
        )
    return _holes(mask) or _black_or_white(mask.convert("L"))


def _holes(picture: Image.Image) -> Image.Image | None:
    """The transparent places of a picture, in white; None if it has none."""
    if picture.mode != "RGBA":
        return None
    holes = _black_or_white(ImageChops.invert(picture.getchannel("A")))
    return holes if holes.getbbox() else None


def _black_or_white(picture: Image.Image) -> Image.Image:
    return picture.point([255 if value >= 128 else 0 for value in range(256)])


def fitted(size: tuple[int, int], *, area: int, multiple: int) -> tuple[int, int]:
    """A size of about `area` pixels in the proportions of `size`, in multiples of `multiple`."""
    width, height = size
    factor = math.sqrt(area / (width * height))

    def rounded(length: int) -> int:
        return max(multiple, round(length * factor / multiple) * multiple)

    return rounded(width), rounded(height)
