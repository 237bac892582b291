"""Thoughts and answers of models that think before they write: two texts, and never one by accident.

A server with a reasoning parser gives them apart (`reasoning_content`, vLLM `reasoning`). Elsewhere the model's marks
tell: `split_thoughts` reads them.
"""

from schemas import Record


class Thinking(Record):
    """How a model's thoughts are told from its answers, and what becomes of them."""

    open_mark: str = "<think>"
    """What the model, or its chat template, begins thoughts with."""
    close_mark: str = "</think>"
    """What the model ends them with."""
    enabled: bool | None = None
    """Tells chat templates that know both ways to think or not (`enable_thinking`); None leaves it to the template."""
    extra_tokens: int = 0
    """Tokens that a reply may have on top of what its stage allows an answer: thoughts count like answers, and what is
    allowed one is soon thought. Above 0 stop strings are looked for here, in answers alone: a server would end thoughts
    at them."""
    keep: bool = False
    """Whether thoughts are kept: in the journal, at the node of `trees` that they led to, with critiques and with
    attempts of dialogues. Else they are counted and dropped. Changing it asks everything again."""

    def __post_init__(self) -> None:
        for name in ("open_mark", "close_mark"):
            if not getattr(self, name).strip():
                raise ValueError(f"thinking.{name} must not be blank, got {getattr(self, name)!r}")
        if self.open_mark == self.close_mark:
            raise ValueError(f"thinking.open_mark and thinking.close_mark must differ, got {self.open_mark!r} twice")
        if self.extra_tokens < 0:
            raise ValueError(f"thinking.extra_tokens must be at least 0, got {self.extra_tokens}")


class Thought(Record):
    """A reply in its two parts."""

    answer: str
    reasoning: str = ""
    is_unfinished: bool = False
    """Whether it ended before its time: in the midst of its thoughts, or of its answer."""


def split_thoughts(text: str, thinking: Thinking, *, is_begun: bool = False, is_open: bool = False) -> Thought:
    r"""Takes the thoughts out of a reply.

    Args:
      text: what the model wrote.
      thinking: its marks.
      is_begun: whether it goes on with an answer that was begun. One that begins its answer may lack the open mark,
        which the server's template has written then: all up to the first close mark is thought.
      is_open: whether the prompt ended inside of thoughts.

    >>> split_thoughts("Hm.</think>\n\nStep 1: 2 + 2 = 4\n", Thinking()).answer
    'Step 1: 2 + 2 = 4\n'
    """
    begin, end = thinking.open_mark, thinking.close_mark
    first = text.find(end)
    if not is_open and first < 0 and begin not in text:
        return Thought(answer=text)
    if is_open or (not is_begun and first >= 0 and begin not in text[:first]):
        text = begin + text
    answer, thoughts, rest = "", [], text
    while begin in rest:
        before, _, after = rest.partition(begin)
        thought, closed, rest = after.partition(end)
        thoughts.append(thought.strip())
        answer = (answer + before) if (answer + before).strip() else ""
        if not closed:
            return Thought(answer=answer, reasoning=_joined(thoughts), is_unfinished=True)
        if not answer or answer.endswith("\n"):  # The blank lines behind thoughts are theirs.
            rest = rest.lstrip() if not answer else rest.lstrip("\n")
    return Thought(answer=answer + rest, reasoning=_joined(thoughts))


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(filter(None, thoughts))
