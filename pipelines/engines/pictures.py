"""Images as models are sent them: data URLs, each made once and not for every request of a tree.

A tree's requests all show the same images, hundreds of times. What is made of an image is kept while the images that
were shown last and their URLs take up no more than `MAX_BYTES`.
"""

import base64
import hashlib
import threading
from collections import OrderedDict

from schemas import Image, Record

MAX_BYTES = 256 * 2**20
"""Of images and URLs that are kept; an image's URL is a third longer than its file."""


class _Made(Record):
    """What is made of an image."""

    digest: str
    url: str


class PictureCache:
    """What was made of images; those not shown for longest are forgotten. Used from several threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._made: OrderedDict[Image, _Made] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._made)

    def make(self, image: Image) -> _Made:
        """The digest and the data URL of an image."""
        with self._lock:
            # Bytes remember their hash, so that an image that was looked up before is found without reading it.
            if (made := self._made.get(image)) is not None:
                self._made.move_to_end(image)
                return made
            made = _Made(
                digest=hashlib.sha256(image.bytes).hexdigest(),
                url=f"data:{image.media_type};base64,{base64.b64encode(image.bytes).decode()}",
            )
            self._made[image] = made
            self._bytes += _size(image, made)
            while self._bytes > self._max_bytes:
                self._bytes -= _size(*self._made.popitem(last=False))
            return made


def _size(image: Image, made: _Made) -> int:
    return len(image.bytes) + len(made.url)


_CACHE = PictureCache()


def picture_digest(image: Image) -> str:
    """SHA-256 of an image's file, hex."""
    return _CACHE.make(image).digest


def data_url(image: Image) -> str:
    """An image as `data:image/png;base64,...`."""
    return _CACHE.make(image).url
