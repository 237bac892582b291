"""Where a journal is: a path, or a Redis server and a prefix on it. Knows no client."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from schemas import Record

PASSWORD_ENV = "WRONGTURN_REDIS_PASSWORD"
"""Environment variable with the server's password; it is in no setting, file or message."""

Place = Path | str
"""A file, or a server's URL."""

_EXPECTED = (
    "journal: expected a path, redis://HOST:6379/0 or rediss://HOST:6379/0 (USER@ before the host and /PREFIX behind "
    "the database are optional)"
)


class Address(Record):
    """A server, a database of it, and what all keys of the journal begin with."""

    host: str
    port: int
    database: int
    prefix: str
    user: str
    is_encrypted: bool

    def __str__(self) -> str:
        scheme, user = "rediss" if self.is_encrypted else "redis", f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{user}{host}:{self.port}/{self.database}/{self.prefix}"


def is_server(place: Place) -> bool:
    """Whether a place is no file."""
    return isinstance(place, str) and "://" in place


def parse_address(url: str) -> Address:
    """The parts of `redis[s]://[USER@]HOST[:6379][/0[/wrongturn]]`.

    Raises:
      ValueError: it is something else; the message does not repeat it, since a password may be in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # What it says may quote the password.
        raise ValueError(f"{_EXPECTED}; what came has no host and port that can be read") from None
    if parts.password is not None:
        raise ValueError(
            f"journal: a password stands in the URL, and settings are saved; take it out and set {PASSWORD_ENV}"
        )
    path = re.fullmatch(r"/?(?:(?P<database>\d{1,9})(?:/(?P<prefix>[A-Za-z0-9._-]{1,200})?)?)?", parts.path)
    is_host = re.fullmatch(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*|[0-9A-Fa-f:.]+", parts.hostname or "")
    is_known = parts.scheme in ("redis", "rediss")
    if not (is_known and is_host and path) or parts.query or parts.fragment:
        raise ValueError(f"{_EXPECTED}; what came has another form")
    return Address(
        host=parts.hostname or "",
        port=port or 6379,
        database=int(path["database"] or 0),
        prefix=path["prefix"] or "wrongturn",
        user=parts.username or "",
        is_encrypted=parts.scheme == "rediss",
    )
