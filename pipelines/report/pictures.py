"""Problems' images as the page holds them: small, drawn anew, inside the page.

Whatever came in with a problem ends here: what is shown was decoded and encoded again, and holds pixels only.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import PIL
from PIL import Image

_SIDES = (320, 160, 80)
"""Pixels of the longer side, the first that fits."""
_MOST_PIXELS = 64_000_000
"""What is larger is not decoded."""
_MOST_IMAGES = 4
"""Of one problem."""


def pictures(images: Sequence[dict[str, Any]], most_bytes: int) -> list[dict[str, str]]:
    """`src` (a data URL) and `alt` of each image that is shown.

    Args:
      images: of a row of `trees`: structs with `bytes`.
      most_bytes: of all data URLs together; an image that does not fit has an empty `src`.
    """
    shown = images[:_MOST_IMAGES]
    urls = [_small(image["bytes"], most_bytes // len(shown)) for image in shown]
    return [
        {"src": url, "alt": f"Image {i} of {len(images)}" + ("" if url else ", which cannot be shown here")}
        for i, url in enumerate(urls, start=1)
    ]


def _small(data: bytes, most_bytes: int) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _MOST_PIXELS:
                return ""
            drawn = image.convert("RGB")
    # What Pillow raises for files that are none: by its documentation, and seen of its decoders.
    except (PIL.UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError):
        return ""
    for side in _SIDES:
        drawn.thumbnail((side, side))
        encoded = io.BytesIO()
        drawn.save(encoded, "WEBP", quality=80)
        url = "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode()
        if len(url) <= most_bytes:
            return url
    return ""
