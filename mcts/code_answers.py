"""The program in a solution of domain `code`, or what a command is given in `command`: which text is the answer.

Nothing here runs or parses it.
"""

import re

_FENCE = re.compile(r"^[^`\n]*(`{3,})(?:[ \t]*([\w+-]+))?[ \t]*$", re.MULTILINE)
_PYTHON = frozenset(["python", "python3", "py"])
_DEFINES = re.compile(r"^[ \t]*(?:@\w|(?:async[ \t]+)?def[ \t]|class[ \t]|\w+[ \t]*=[ \t]*lambda\b)", re.MULTILINE)
_IMPORTS = re.compile(r"(?:import|from)[ \t]+\w")
_PROSE = re.compile(r"\n[ \t]*\n(?=[A-Z][a-z]*,? [a-z])")


def find(text: str, last_answer_line: int | None) -> str | None:
    """The last fenced block of Python, else what follows the last `Answer:` line where that looks like a program.

    Blocks in other languages are passed over. Of several blocks the last that defines something (a function, a class,
    a decorated one, a lambda with a name) counts, so that an example of its use or its output behind it is not taken
    for it. A block that is still open at the end was cut by the length limit: there is no answer then.

    Args:
      text: the solution.
      last_answer_line: where the text after its last `Answer:` begins; None where it has no such line.
    """
    found = _blocks(text)
    if found is None:
        return None
    blocks = [block for language, block in found if not language or language in _PYTHON]
    programs = [block for block in blocks if _DEFINES.search(block)] or blocks
    if programs:
        return programs[-1].strip("\n") if programs[-1].strip() else None
    if last_answer_line is None:
        return None
    rest = _PROSE.split(text[last_answer_line:], maxsplit=1)[0].strip()
    return rest if _DEFINES.search(rest) or _IMPORTS.match(rest) else None


def find_any(text: str, last_answer_line: int | None) -> str | None:
    """The last fenced block of whatever language, else all that follows the last `Answer:` line; domain `command`.

    Args:
      text: the solution.
      last_answer_line: where the text after its last `Answer:` begins; None where it has no such line.
    """
    found = _blocks(text)
    if found is None:
        return None
    rest = "" if last_answer_line is None else text[last_answer_line:].strip()
    return (found[-1][1].strip("\n") if found else rest).rstrip() or None


def _blocks(text: str) -> list[tuple[str, str]] | None:
    """Fenced blocks with their languages; None where the last one is still open."""
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for mark in _FENCE.finditer(text):
        if opened is None:
            opened = mark
        elif len(mark[1]) >= len(opened[1]) and not mark[2]:
            blocks.append(((opened[2] or "").casefold(), _dedented(text[opened.end() + 1 : mark.start(1)])))
            opened = None
    return None if opened is not None else blocks


def _dedented(block: str) -> str:
    """A block without the indentation of its first line, which is that of the list item that holds it."""
    lines = block.split("\n")
    first = next((line for line in lines if line.strip()), "")
    margin = first[: len(first) - len(first.lstrip(" \t"))]
    return "\n".join(line.removeprefix(margin) for line in lines)
