"""A problem with a checkable answer."""

from schemas.base import Record

_MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def media_type_of(data: bytes) -> str | None:
    """What a file's first bytes say that it is: PNG, JPEG, GIF or WebP, the types that models are sent; else None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _MAGIC.items() if data.startswith(magic)), None)


class Image(Record):
    """A picture that belongs to a problem, and is shown to everybody who is shown the problem."""

    bytes: bytes
    """The file as it was, undecoded."""
    media_type: str
    """For example `image/png`."""


class Problem(Record):
    """What is asked, what the right answer is, and how to check it."""

    id: str
    """Unique in a run: the source's own id where it has one, else a digest of the content."""
    source: str
    """Where it came from, for example `reasoning_gym/chain_sum` or a file's name."""
    domain: str
    """Which checker decides about answers: `math`, `choice`, `exact`, `reasoning_gym`, `code`, `command`."""
    question: str
    answer: str
    """The gold answer. Reaches checkers and reference critics only, never a blind critic or a rollout.

    In `code` it is Python: the tests that a solution must pass. In `command` what the run's command may want to know.
    """
    images: tuple[Image, ...] = ()
    metadata: str = "{}"
    """JSON object with whatever else the source said; the reasoning-gym scorer reads its entry from here, `code` its
    `entry_point`: the name of the function that the tests' `check` is called with.
    """
