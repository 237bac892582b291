"""A model's own chat template, filled in here: for servers that are sent plain text.

So a half-written answer is continued byte for byte: what the template puts before an answer is text like the rest, and
nothing can come between it and the prefix.
"""

import datetime
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from pipelines.errors import UserError
from schemas import Record


class ChatTemplate(Record):
    """The template of one model."""

    source: str
    """Jinja, as models bring it with them."""
    bos_token: str = ""
    eos_token: str = ""
    adds_bos: bool = False
    """Whether the server begins every text with the bos token: the template's own is left out then."""

    def begin(self, prompt: str, *, enable_thinking: bool | None = None) -> str:
        """A conversation of one user turn, up to where the assistant's answer begins.

        Args:
          prompt: the user turn.
          enable_thinking: what templates that ask for it are told; None leaves it undefined.

        Raises:
          UserError: the template cannot be filled in with a user turn.
        """
        told = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        try:
            text = _compiled(self.source).render(
                messages=[{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
                **told,
            )
        except _TROUBLES as error:
            raise UserError(f"cannot fill in the model's chat template ({error}); set engine.style=chat") from error
        return text.removeprefix(self.bos_token) if self.adds_bos else text


_TROUBLES = (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a template can end with, a program of somebody else's as it is."""


_DAY = datetime.date(2024, 7, 26)
"""What `strftime_now` says the date is, for good: a prompt that holds today's would be another one tomorrow, and what
was asked with it would not be found again. The day is the one that Llama 3's template takes where it is told none."""
_QUESTION = re.compile(r"\bstrftime_now\b(?!\s*\()")
"""Names it without calling it: asks whether it is there. Such a template has a day of its own, which it is left."""


class _Generation(jinja2.ext.Extension):
    """The tag by which trainers find the assistant's words, as transformers has it: what it encloses, as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _refuse(message: str) -> None:
    """What templates call `raise_exception`."""
    raise jinja2.TemplateError(message)


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    # A template is a program of whoever made the model. Blocks are trimmed as transformers does.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.globals["raise_exception"] = _refuse
    if not _QUESTION.search(source):
        environment.globals["strftime_now"] = _DAY.strftime
    return environment.from_string(source)


def load_chat_template(folder: str) -> ChatTemplate:
    """The template of a model in a Hugging Face folder.

    Raises:
      UserError: there is no such folder, or no template in it.
    """
    path = Path(folder).expanduser()
    settings = _read_json(path / "tokenizer_config.json")
    file = path / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else _named(settings.get("chat_template"))
    if not source:
        raise UserError(
            f"engine.style=templated needs the model's chat template; neither {file.absolute()} nor a `chat_template` "
            "in tokenizer_config.json beside it; give the model's folder, or set engine.style=chat"
        )
    bos = _token(settings.get("bos_token"))
    return ChatTemplate(
        source=source,
        bos_token=bos,
        eos_token=_token(settings.get("eos_token")),
        adds_bos=bool(bos) and _adds(bos, settings, _read_json(path / "tokenizer.json")),
    )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path.absolute()}: {error}; expected a JSON object") from error
    return content if isinstance(content, dict) else {}


def _named(template: object) -> str:
    """One template, or the one called `default` of several."""
    if isinstance(template, list):
        template = {item.get("name"): item.get("template") for item in template}.get("default")
    return template if isinstance(template, str) else ""


def _token(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _adds(bos: str, settings: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> bool:
    """Whether the tokenizer begins texts with its bos token: it says so, or its post-processor does it."""
    said = settings.get("add_bos_token")
    if isinstance(said, bool):
        return said
    post = tokenizer.get("post_processor") or {}
    processors = [post, *post.get("processors", ())]
    singles = (processor["single"] for processor in processors if processor.get("type") == "TemplateProcessing")
    return any(single and single[0].get("SpecialToken", {}).get("id") == bos for single in singles)
