"""Ports of loopback: which is free, and what answers at one. Asked past any proxy that the environment names."""

import http.client
import socket

import msgspec

_ANSWER_SECS = 5.0
"""Longest time for a server to answer such a question."""
_MOST_BYTES = 2**20


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def free_port() -> int:
    """A port that is free now; nobody holds it for whoever asks."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen at a port now."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def is_well(port: int) -> bool:
    """Whether `/health` says so."""
    return _get(port, "/health")[0] == 200


def models_at(port: int) -> tuple[str, ...]:
    """The models that a server says it serves; none where it does not say."""
    status, body = _get(port, "/v1/models")
    try:
        return tuple(model.id for model in msgspec.json.decode(body, type=_Models).data) if status == 200 else ()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
