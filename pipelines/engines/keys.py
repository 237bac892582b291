"""API keys: where one may stand, and how it is kept out of everything that is written.

A key comes from the environment variable that `engine.api_key_env` names and goes into one header. What a server says
may hold it again: error bodies do, and a reply's text may. Texts end in the journal, in shards and in logs, so the key
is taken out of them before anybody else sees them.
"""

import base64
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.errors import UserError

HIDDEN = "***"
"""What stands for a key."""
_SHORTEST_IN_TEXT = 12
"""Characters of a key that is taken out of model's texts. Shorter ones are words, such as the `EMPTY` of a local vLLM:
a text that holds one is the model's own."""
_SHORTEST_CODED = 8
"""Characters of an encoded key that are looked for: a few letters are everywhere."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY_BEGINS = re.compile(r"(?i:sk-|bearer\b)|(hf|gsk|ghp|gho|sk|pk)_(?=[A-Za-z]*\d)\w{12,}|AIza\w{20,}|eyJ\w{12,}")
"""How the keys of well-known services begin."""
_MIXED = re.compile(r"(?=([A-Za-z]\d|\d[A-Za-z]))")
_SECRET = re.compile(r"(?i).*\.env\.\w*(_KEY|API_?KEY|TOKEN|SECRET|PASSWORD)")
"""Settings that are environment variables with secrets, of servers that are started here."""
_SECRET_NAME = re.compile(r"(?i)KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL")
"""Environment variables whose values are nobody's business."""
_SECRET_WORD = re.compile(r"--(api[-_]key|hf[-_]token)\b")
_SHORTEST_KEY, _MOST_CHANGES = 20, 3
"""A name of an environment variable changes between letters and digits seldom, a random key all the time."""


def _spellings(key: str) -> Iterator[str]:
    """A key as it is, in URLs, and in base64 after 0, 1 and 2 bytes of other text; the longest spelling first."""
    content = key.encode()
    coded = {urllib.parse.quote(key), urllib.parse.quote(key, safe=""), urllib.parse.quote_plus(key)}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        coded.add(encode(content).decode())
        for before in range(3):
            # Characters at the ends hold bits of the neighbours, whatever those are.
            first, last = -(-before * 8 // 6), (before + len(content)) * 8 // 6
            coded.add(encode(bytes(before) + content).decode()[first:last])
    plain = {key} | {text for text in coded if len(text) >= _SHORTEST_CODED}
    # JSON may escape a slash.
    yield from sorted({*plain, *(text.replace("/", "\\/") for text in plain)}, key=len, reverse=True)


def read_key(variable: str) -> str:
    """The key in an environment variable; empty where there is none.

    Raises:
      UserError: it cannot be put into a header.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"the environment variable {variable} holds characters that no key has (a line break, a quote that is not "
            "ASCII); set it again"
        )
    return key


class Hider:
    """Takes one key out of what a server said, in any of the spellings it is likely to come back in."""

    def __init__(self, key: str) -> None:
        self._spellings = tuple(_spellings(key)) if key else ()
        self._bytes = tuple(text.encode() for text in self._spellings)
        self._is_long = len(key) >= _SHORTEST_IN_TEXT

    def message(self, text: str) -> str:
        """A message for people without the key, however short that is."""
        for spelling in self._spellings:
            text = text.replace(spelling, HIDDEN)
        return text

    def text(self, text: str) -> str:
        """A model's text without the key, unless that is short enough to be a word of the model's own."""
        return self.message(text) if self._is_long else text

    def body(self, content: bytes) -> bytes:
        """The same for a reply as it came."""
        for spelling in self._bytes if self._is_long else ():
            if spelling in content:
                content = content.replace(spelling, HIDDEN.encode())
        return content


def hide_secrets(said: str) -> str:
    """What a program of a model's said, without the secrets in this process's environment.

    It has an environment of its own with nothing in it, but reads what its user may read, /proc of this process too.
    """
    for name, value in os.environ.items() if said else ():
        if _SECRET_NAME.search(name):
            said = Hider(value.strip()).text(said)
    return said


def check_url(url: str) -> None:
    """Refuses a URL with anything in it that should not be in `run.json` and in messages.

    Raises:
      ValueError: it is no URL of HTTP, or holds a user, a query or a fragment. Repeats none of them.
    """
    _, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest or url, maxsplit=1)[0]
    if "@" in authority:
        raise ValueError(
            "url holds a user or password before the @, and the url is saved with the data; leave them out, put the "
            "key into an environment variable and name that with api_key_env"
        )
    if mark := next((mark for mark in "?#" if mark in url), ""):
        raise ValueError(
            f"url must be a base URL without anything after {mark!r}, and it is saved with the data; put a key into an "
            "environment variable and name that with api_key_env"
        )
    if not url.startswith(("http://", "https://")):
        said = "what looks like a key" if _looks_like_key(url) else repr(url)
        raise ValueError(f"url must start with http:// or https://, got {said}")


def check_variable(name: str) -> None:
    """Refuses as the name of an environment variable what is none, and what looks like the key itself.

    Raises:
      ValueError: says so without repeating it.
    """
    if name and (not _NAME.fullmatch(name) or _looks_like_key(name)):
        raise ValueError(
            "api_key_env must be the name of an environment variable (letters, digits, underscores), such as "
            "OPENAI_API_KEY; what came is none or looks like a key itself and is not repeated here. Put the key into "
            "the variable: export OPENAI_API_KEY=..."
        )


def refuse_keys(plain: Any) -> None:
    """Refuses settings that hold a key, such as one that `${oc.env:NAME}` has put there: settings are saved.

    Args:
      plain: nested values, before anything else is checked.

    Raises:
      UserError: names the setting, and does not repeat what it holds.
    """
    found = list(_strings("", plain))
    keys = {read_key(value) for name, value in found if name.endswith("api_key_env") and _NAME.fullmatch(value)}
    for name, value in found:
        if any(len(key) >= _SHORTEST_IN_TEXT and key in value for key in keys):
            raise UserError(
                f"{name} holds the key itself, and settings are saved; leave it out: api_key_env names its variable"
            )
        if value and (_SECRET.fullmatch(name) or _SECRET_WORD.match(value)):
            raise UserError(
                f"{name} would hold a secret, and settings are saved; leave it out and export an environment variable: "
                "servers that are started here have all of this process's"
            )
        try:
            if name.endswith("api_key_env"):
                check_variable(value)
            elif name.endswith(".url") and value:
                for url in filter(None, map(str.strip, value.split(","))):
                    check_url(url)
        except ValueError as error:
            raise UserError(f"{name.rpartition('.')[0]}: {error}") from None


def _strings(name: str, plain: Any) -> Iterator[tuple[str, str]]:
    """The texts among nested values, with the settings' names."""
    if isinstance(plain, str):
        yield name, plain
    elif isinstance(plain, Mapping):
        for key, value in plain.items():
            yield from _strings(f"{name}.{key}".lstrip("."), value)
    elif isinstance(plain, list | tuple):
        for i, value in enumerate(plain):
            yield from _strings(f"{name}[{i}]", value)


def _looks_like_key(text: str) -> bool:
    changes = len(_MIXED.findall(text))
    return bool(_KEY_BEGINS.match(text)) or (len(text) >= _SHORTEST_KEY and changes > _MOST_CHANGES)
