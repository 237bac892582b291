"""The world of counted shapes: a picture, and a question about how many shapes of some kinds there are in it.

    How many red circles, blue squares and green triangles are there in the picture together?

Whoever looks at the picture reads the question as a chain of arithmetic, `Start with 0. Add 3. Add 2. Add 4. What is
the result?`, with one operation for each kind in its order. Solutions, critiques and what is true of them are those of
the chain: step k states how many shapes of the first k kinds there are. Counts are taken from the pixels alone, so that
a picture that is dropped, damaged or another problem's makes the answer wrong.
"""

import functools
import io
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import below, generator
from pipelines.errors import UserError
from schemas import Image, Problem

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 30, 30),
    "blue": (30, 60, 200),
    "green": (20, 140, 60),
    "orange": (240, 140, 20),
}
SHAPES = ("circle", "square", "triangle")
KINDS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
MAX_KINDS = 8
"""Kinds that one question asks about at most: so many and one more have room in a picture."""

_MAX_COUNT = 6
_COLUMNS, _ROWS, _CELL = 10, 6, 32
"""Cells of a picture, each with at most one shape, and pixels along a cell's side."""
_LEAST_SIZE, _MOST_SIZE = 18, 26
"""Pixels along a shape's side."""
_WHITE = (255, 255, 255)
_SQUARE_FILL, _CIRCLE_FILL = 0.9, 0.65
"""Shares of its bounding box from which a shape is a square (all of it), and a circle (pi / 4); a triangle has half."""
_MAX_PIXELS = 4_000_000
_QUESTION = re.compile(r"How many ([a-z ,]+) are there in the picture(?: together)?\?")
_KIND = re.compile(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})s")


def make_shapes_problem(seed: int, index: int, settings: SimulatedSettings) -> Problem:
    """Problem `index` of the world `seed`; between `min_steps` and `max_steps` kinds are asked about.

    The answer is no count, no sum on the way and no step's number, so that a text which holds it gives it away. The
    picture's pixels are a function of the arguments; its bytes depend on the version of the library that packs them.
    """
    draws = generator("shapes", seed, index)
    size = settings.min_steps + below(draws, settings.max_steps - settings.min_steps + 1)
    while True:
        kinds = shuffled(KINDS, draws)[: size + 1]
        counts = {kind: 1 + below(draws, _MAX_COUNT) for kind in kinds}
        asked = kinds[:size]
        total = sum(counts[kind] for kind in asked)
        sums = {sum(counts[kind] for kind in asked[:done]) for done in range(size)}
        if total not in {*sums, *counts.values(), *range(size + 2)}:
            break
    return Problem(
        id=f"shapes-{seed}-{index}",
        source="simulated_shapes",
        domain="exact",
        question=word_question(asked),
        answer=str(total),
        images=(Image(bytes=draw_shapes(counts, draws), media_type="image/png"),),
    )


def word_question(kinds: Sequence[tuple[str, str]]) -> str:
    """The question how many shapes of these kinds there are."""
    names = [f"{colour} {shape}s" for colour, shape in kinds]
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"How many {listed} are there in the picture{' together' if len(names) > 1 else ''}?"


def draw_shapes(counts: dict[tuple[str, str], int], draws: random.Random) -> bytes:
    """A PNG with so many shapes of each kind (colour and shape), none of which touches another.

    Raises:
      UserError: Pillow is missing.
    """
    pillow, drawing = pillow_of()
    picture = pillow.new("RGB", (_COLUMNS * _CELL, _ROWS * _CELL), _WHITE)
    pen = drawing.Draw(picture)
    shapes = [kind for kind, count in counts.items() for _ in range(count)]
    cells = shuffled(range(_COLUMNS * _ROWS), draws)
    assert len(shapes) <= len(cells), counts
    for (colour, shape), cell in zip(shapes, cells, strict=False):
        size = _LEAST_SIZE + below(draws, _MOST_SIZE - _LEAST_SIZE + 1)
        # One pixel at either side of a cell stays white: shapes in neighbouring cells never touch.
        room = _CELL - size - 2
        left = cell % _COLUMNS * _CELL + 1 + below(draws, room + 1)
        top = cell // _COLUMNS * _CELL + 1 + below(draws, room + 1)
        _draw(pen, shape, (left, top, left + size - 1, top + size - 1), COLOURS[colour])
    packed = io.BytesIO()
    picture.save(packed, "PNG")
    return packed.getvalue()


def _draw(pen: "ImageDraw", shape: str, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=colour)


def open_picture(data: bytes) -> Any:
    """A picture of Pillow's, in red, green and blue.

    Raises:
      ValueError: it is none that can be opened, or too large.
      UserError: Pillow is missing.
    """
    pillow, _ = pillow_of()
    try:
        with pillow.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > _MAX_PIXELS:
                raise ValueError(f"expected at most {_MAX_PIXELS} pixels, got {opened.width} x {opened.height}")
            return opened.convert("RGB")
    except OSError as error:
        raise ValueError(f"expected a picture, got {data[:16]!r}: {error}") from None


@functools.lru_cache(maxsize=4096)
def count_shapes(data: bytes) -> Counter[tuple[str, str]]:
    """How many shapes of each kind are in a picture: runs of touching pixels of one colour, told by how they fill.

    Raises:
      ValueError: it is no picture that can be opened.
      UserError: Pillow is missing.
    """
    import numpy as np
    from scipy import ndimage

    pixels = np.asarray(open_picture(data))
    counts: Counter[tuple[str, str]] = Counter()
    for colour, value in COLOURS.items():
        labels, _ = ndimage.label((pixels == np.array(value)).all(axis=2), structure=np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            filled = float((labels[box] == number).mean())
            shape = "square" if filled >= _SQUARE_FILL else "circle" if filled >= _CIRCLE_FILL else "triangle"
            counts[colour, shape] += 1
    return counts


def asked_kinds(question: str) -> list[tuple[str, str]] | None:
    """The kinds (colour and shape) that a question asks about, in its order; None where it is no such question."""
    found = _QUESTION.search(question)
    return _KIND.findall(found.group(1)) or None if found else None


def as_chain(question: str, pictures: Sequence[bytes]) -> str:
    """The chain of arithmetic that a question is to whoever looks at the pictures; other questions stay as they are.

    Whoever is shown no picture counts nothing.

    Raises:
      ValueError: something shown is no picture.
    """
    kinds = asked_kinds(question)
    if kinds is None:
        return question
    counts = sum((count_shapes(data) for data in pictures), Counter[tuple[str, str]]())
    commands = " ".join(f"Add {counts[kind]}." for kind in kinds)
    return f"Start with 0. {commands} What is the result?"


def chain_of(problem: Problem) -> str:
    """The question of a problem as `parse_question` and all that is true of solutions take it."""
    return as_chain(problem.question, [image.bytes for image in problem.images])


def shuffled(items: Sequence[Any] | range, draws: random.Random) -> list[Any]:
    """In an order drawn by Fisher and Yates, which `random.shuffle` does not promise to keep to."""
    left = list(items)
    for last in range(len(left) - 1, 0, -1):
        other = below(draws, last + 1)
        left[last], left[other] = left[other], left[last]
    return left


def pillow_of() -> tuple[Any, Any]:
    """Pillow's modules `Image` and `ImageDraw`. Raises UserError where it is missing."""
    try:
        from PIL import Image as pillow
        from PIL import ImageDraw as drawing
    except ImportError as error:
        raise UserError(f"this world draws and reads pictures with Pillow ({error}); pip install pillow") from None
    return pillow, drawing
