"""The world of counted shapes: what is drawn is what is counted, and only who sees the picture knows the answer."""

import asyncio
import io
import random
from collections import Counter

import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

from pipelines.engines import Request, Sampling, connect, serve
from pipelines.engines.settings import Simulated
from pipelines.engines.simulated import (
    SimulatedSettings,
    chain_of,
    first_wrong_step,
    make_shapes_problem,
    parse_question,
    serving,
    solution_steps,
)
from pipelines.engines.simulated.shapes import (
    COLOURS,
    KINDS,
    MAX_KINDS,
    as_chain,
    asked_kinds,
    count_shapes,
    draw_shapes,
    word_question,
)
from pipelines.problems import ProblemError, SimulatedProblems, read_problems
from schemas import Image, Problem
from tests.engines.simulated_client import post

FAULTLESS = SimulatedSettings(error_low=0.0, error_high=0.0)
QUESTION = "How many red circles, blue squares and green triangles are there in the picture together?"


def by_hand() -> bytes:
    """Two red circles, one blue square and three green triangles, drawn without our own drawing."""
    picture = Pillow.new("RGB", (200, 100), "white")
    pen = ImageDraw.Draw(picture)
    for left in (5, 40):
        pen.ellipse((left, 5, left + 21, 26), fill=COLOURS["red"])
    pen.rectangle((80, 5, 99, 24), fill=COLOURS["blue"])
    for left in (5, 40, 80):
        pen.polygon([(left, 90), (left + 24, 90), (left + 12, 66)], fill=COLOURS["green"])
    packed = io.BytesIO()
    picture.save(packed, "PNG")
    return packed.getvalue()


def test_a_picture_drawn_by_hand_is_counted_rightly():
    expected = {("red", "circle"): 2, ("blue", "square"): 1, ("green", "triangle"): 3}
    assert count_shapes(by_hand()) == expected


@pytest.mark.parametrize("seed", range(6))
def test_what_is_drawn_is_what_is_counted(seed):
    draws = random.Random(seed)
    # 54 shapes in 60 cells: nowhere are pictures fuller.
    counts = {kind: 6 if seed == 0 else draws.randint(1, 6) for kind in draws.sample(KINDS, MAX_KINDS + 1)}
    assert count_shapes(draw_shapes(counts, draws)) == counts


def test_the_question_names_the_kinds_in_their_order():
    kinds = [("red", "circle"), ("blue", "square"), ("green", "triangle")]
    assert word_question(kinds) == QUESTION
    assert asked_kinds(QUESTION) == kinds
    assert word_question(kinds[:1]) == "How many red circles are there in the picture?"
    assert asked_kinds("How many red circles are there in the picture?") == kinds[:1]


def test_whoever_looks_reads_a_chain():
    assert as_chain(QUESTION, [by_hand()]) == "Start with 0. Add 2. Add 1. Add 3. What is the result?"
    assert as_chain(QUESTION, []) == "Start with 0. Add 0. Add 0. Add 0. What is the result?"
    assert as_chain("Start with 3. Add 4. What is the result?", [by_hand()]).startswith("Start with 3.")


def test_what_is_no_picture_is_not_looked_at():
    with pytest.raises(ValueError, match="expected a picture"):
        as_chain(QUESTION, [b"\x89PNG\r\n\x1a\nno more"])


def test_problems_have_the_answer_that_their_pictures_show():
    made = [make_shapes_problem(5, index, SimulatedSettings(min_steps=2, max_steps=8)) for index in range(20)]
    for problem in made:
        kinds = asked_kinds(problem.question)
        (image,) = problem.images
        counts = [count_shapes(image.bytes)[kind] for kind in kinds]
        assert 2 <= len(kinds) == len(set(kinds)) <= 8
        assert sum(counts) == int(problem.answer) == parse_question(chain_of(problem)).gold
        assert min(counts) >= 1
        # A text that holds the answer gives it away: it is no count, no sum on the way and no step's number.
        assert int(problem.answer) not in {*counts, *range(len(kinds) + 2)}
    assert len({problem.images for problem in made}) == len({problem.id for problem in made}) == 20
    assert make_shapes_problem(5, 3, SimulatedSettings(min_steps=2, max_steps=8)) == made[3]


def test_a_source_of_shapes_and_what_it_refuses():
    problems = list(read_problems(SimulatedProblems(world="shapes", num_problems=3, seed=2)))
    assert [problem.id for problem in problems] == ["shapes-2-0", "shapes-2-1", "shapes-2-2"]
    with pytest.raises(ProblemError, match=r"problems.max_steps: a picture has room for 8 kinds, got 9"):
        list(read_problems(SimulatedProblems(world="shapes", max_steps=9)))


def answers(question: str, images: tuple[Image, ...], world: SimulatedSettings, samples: int = 1) -> list[str]:
    async def ask() -> list[str]:
        with serve(Simulated(world=world)) as endpoint:
            engine = connect(endpoint)
            try:
                request = Request(
                    prompt=f"Problem:\n{question}\n\nSolution:\n",
                    sampling=Sampling(max_tokens=200, temperature=1.0),
                    num_samples=samples,
                    images=images,
                )
                reply = await engine.complete(request)
            finally:
                await engine.close()
        assert not any(sample.error for sample in reply.samples), reply
        return [sample.text for sample in reply.samples]

    return asyncio.run(ask())


def final(text: str) -> str:
    return text.rpartition("Answer: ")[2].strip()


def test_the_server_sees_the_picture_that_it_was_sent():
    """With the right picture it is right; with another problem's picture, or none, it is wrong."""
    problem, other = (make_shapes_problem(1, index, FAULTLESS) for index in (0, 1))
    assert {final(text) for text in answers(problem.question, problem.images, FAULTLESS, 4)} == {problem.answer}
    shown = sum(count_shapes(other.images[0].bytes)[kind] for kind in asked_kinds(problem.question))
    assert str(shown) != problem.answer
    assert {final(text) for text in answers(problem.question, other.images, FAULTLESS, 4)} == {str(shown)}
    assert {final(text) for text in answers(problem.question, (), FAULTLESS, 4)} == {"0"}


def test_wrong_answers_have_a_first_wrong_step_and_right_ones_none():
    world = SimulatedSettings(error_low=0.2, error_high=0.2, recovery=0.0)
    problem = make_shapes_problem(3, 0, world)
    chain = chain_of(problem)
    seen: Counter[bool] = Counter()
    for text in answers(problem.question, problem.images, world, 64):
        is_right = final(text) == problem.answer
        assert (first_wrong_step(chain, solution_steps(text)) is None) == is_right
        seen[is_right] += 1
    assert min(seen[True], seen[False]) >= 5


def parts(url: str, problem: Problem):
    content = [{"type": "image_url", "image_url": {"url": url}}]
    content.append({"type": "text", "text": f"Problem:\n{problem.question}\n\nSolution:\n"})
    return {"model": "simulated", "messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1/a.png", "expected data:image/"),
        ("data:image/png;base64,@@", "image_url: "),
        ("data:image/png;base64,iVBORw0KGgo=", "expected a picture"),
    ],
)
def test_what_cannot_be_looked_at_is_answered_with_400(url, said):
    with serving(FAULTLESS) as server:
        got = post(server, parts(url, make_shapes_problem(0, 0, FAULTLESS)), path="/v1/chat/completions")
    assert got.status == 400
    assert said in got.json["error"]["message"]
