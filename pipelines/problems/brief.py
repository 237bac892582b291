"""A value of a problem file in one line of a message."""

from typing import Any


def brief(value: Any) -> str:
    """At most 80 characters of a value; escapes make it printable whatever it holds."""
    text = ascii(value[:200] if isinstance(value, str | bytes | list) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
