r"""Replies whose JSON escapes half a character, as servers write them that cut a text between two of its tokens."""

import re

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""A JSON escape: a whole surrogate pair's, half a pair's, or another one's beginning."""


def whole_characters(body: bytes) -> bytes:
    r"""A JSON body with U+FFFD for each half of a surrogate pair, one of which would make all of it unreadable.

    >>> whole_characters(rb'"a\ud83d\ude00b\ud83d"')
    b'"a\\ud83d\\ude00b\\ufffd"'
    """
    return _ESCAPE.sub(_whole, body) if b"\\ud" in body or b"\\uD" in body else body


def _whole(escape: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if escape["half"] else escape[0]
