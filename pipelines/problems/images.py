"""Images of problems: from whatever a row holds to the bytes of a file that models take."""

import base64
import re
from pathlib import Path
from typing import Any

from pipelines.problems.brief import brief
from schemas import Image, media_type_of

_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_EXPECTED = "expected bytes, base64, a data URL or a path beside the file"


class ImageError(ValueError):
    """What should be an image is none that can be used; says what it is and what was expected."""


def read_images(value: Any, folder: Path | None, column: str, max_bytes: int) -> tuple[Image, ...]:
    """The images in one column of a row: none where it is null or empty, several where it is a list.

    Args:
      value: bytes, base64, a data URL, a path, the `{bytes, path}` of `datasets`, or a list of these.
      folder: what paths are relative to, and what none leads out of; None where there can be no path.
      column: the column's name, for messages.
      max_bytes: size of an image's file at most.

    Raises:
      ImageError: one of them cannot be used.
    """
    if value is None or value == "":
        return ()
    return tuple(_image(item, folder, column, max_bytes) for item in (value if isinstance(value, list) else [value]))


def _image(value: Any, folder: Path | None, column: str, max_bytes: int) -> Image:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    try:
        data = _data(value, folder, max_bytes)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(f"{column!r} cannot be read: {said}") from None
    if data is None:
        raise ImageError(f"{column!r} is {brief(value)}, {_EXPECTED}")
    if len(data) > max_bytes:
        raise ImageError(f"{column!r} has {len(data)} bytes, expected at most {max_bytes} (problems.max_image_bytes)")
    # Its name and what a data URL says of it may be wrong; what models go by is in the file.
    media_type = media_type_of(data)
    if media_type is None:
        raise ImageError(f"{column!r} starts with {data[:8]!r}, expected PNG, JPEG, GIF or WebP")
    return Image(bytes=data, media_type=media_type)


def _data(value: Any, folder: Path | None, max_bytes: int) -> bytes | None:
    """The file; one byte more than may be where it is too large. None where there is none."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        return None
    if value.startswith("data:"):
        return base64.b64decode(value.partition(",")[2], validate=True)
    if folder is not None and (path := _beside(value, folder)):
        with path.open("rb") as stream:
            return stream.read(max_bytes + 1)
    return base64.b64decode(value, validate=True) if _BASE64.fullmatch(value) else None


def _beside(value: str, folder: Path) -> Path | None:
    """The file of that name in the folder or below it: no row reaches for files that lie elsewhere, nor does a link."""
    try:
        path = (folder / value).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, RuntimeError):  # Base64 is longer than a name may be; a link may lead to itself.
        return None
