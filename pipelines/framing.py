"""Messages through a pipe between processes of ours: length-prefixed, so that one read is one message."""

import math
import os
import select
import struct

_LENGTH = struct.Struct(">I")
_MAX_FRAME = 1 << 26


class Gone(Exception):
    """The process at the other end of a pipe ended, or did not answer in time."""


def write_frame(pipe: int, content: bytes) -> None:
    """Writes a message with its length before it."""
    view = memoryview(_LENGTH.pack(len(content)) + content)
    while view:
        view = view[os.write(pipe, view) :]


def is_ready(pipe: int, seconds: float) -> bool:
    """Whether something can be read within that time."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(math.ceil(seconds * 1000)))


def read_frame(pipe: int) -> bytes:
    """The next message. Raises `Gone` where none comes, or none that anybody here would send."""
    (length,) = _LENGTH.unpack(_read_exactly(pipe, _LENGTH.size))
    if length > _MAX_FRAME:
        raise Gone(f"a frame of {length} bytes is announced, at most {_MAX_FRAME} are sent")
    return _read_exactly(pipe, length)


def _read_exactly(pipe: int, length: int) -> bytes:
    content = b""
    while len(content) < length:
        piece = os.read(pipe, length - len(content))
        if not piece:
            raise Gone("the other process ended")
        content += piece
    return content
