"""What a Redis server's own settings promise of data that it has acknowledged. Knows no client."""

import re
from collections.abc import Mapping
from typing import Any

from pipelines.journal.store import JournalError
from schemas import Record


class Promise(Record):
    """How a commit on this server comes to be on disk."""

    waits: bool
    """Whether each commit has to wait for the disk by WAITAOF; else the server answers after its fsync."""
    unchecked: str
    """What the server did not let us check; empty where everything is known."""


def check_promise(name: str, info: Mapping[str, Any], config: Mapping[str, str] | None) -> Promise:
    """What a server promises.

    `appendfsync everysec` alone is not enough, not even against the mere death of the server's process: while an fsync
    is going on, Redis holds back what it has acknowledged for up to two seconds before it writes it to the file at all
    (`flushAppendOnlyFile` in its `aof.c`).

    Args:
      name: of the server, for messages.
      info: what INFO says.
      config: what CONFIG GET says; None where the server forbids it, as managed services do.

    Raises:
      JournalError: it may lose or throw away what it has acknowledged.
    """
    policy = str(info.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        raise JournalError(
            f"the server {name} throws away keys when its memory is full (maxmemory-policy {policy}); set it with "
            "CONFIG SET maxmemory-policy noeviction and CONFIG REWRITE, or name another server"
        )
    if str(info.get("aof_enabled", "1")) == "0":
        raise JournalError(
            f"the server {name} keeps nothing on disk (appendonly no); turn it on with CONFIG SET appendonly yes, "
            "CONFIG SET appendfsync always and CONFIG REWRITE, or name another server"
        )
    unknown = [] if "aof_enabled" in info else ["whether appendonly is on"]
    unknown += [] if policy else ["maxmemory-policy"]
    can_wait = _version(info) >= (7, 2)
    fsync = (config or {}).get("appendfsync", "")
    is_paused = (config or {}).get("no-appendfsync-on-rewrite") == "yes"
    if not fsync and not can_wait:
        unknown.append("appendfsync")
    if fsync == "no" or (fsync and not can_wait and (fsync != "always" or is_paused)):
        paused = " with no-appendfsync-on-rewrite yes" if fsync == "always" else ""
        raise JournalError(
            f"the server {name} acknowledges what is not on disk yet (appendfsync {fsync}{paused}); set it with "
            "CONFIG SET appendfsync always, CONFIG SET no-appendfsync-on-rewrite no and CONFIG REWRITE; with a Redis "
            "of 7.2 or later everysec is enough, which has WAITAOF"
        )
    return Promise(waits=can_wait and (fsync != "always" or is_paused), unchecked=", ".join(unknown))


def _version(info: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", str(info.get("redis_version", "")))[:2]))
