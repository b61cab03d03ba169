"""Pictures as files."""

import io

from PIL import Image

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

PNG_LEVEL = 3
"""How hard a PNG is compressed, 0 to 9: beyond it files hardly shrink and take several times as long."""


def encode(picture: Image.Image, kind: str, quality: int) -> bytes:
    """The file of a picture. `quality`: 0 to 100, for JPEG and WebP; 100 in WebP is still lossy."""
    out = io.BytesIO()
    match kind:
        case "jpeg":
            picture.convert("RGB").save(out, "JPEG", quality=max(1, quality))
        case "webp":
            picture.save(out, "WEBP", quality=quality)
        case _:
            picture.save(out, "PNG", compress_level=PNG_LEVEL)
    return out.getvalue()
