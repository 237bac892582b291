"""A whole run over pictures of shapes: everybody sees the picture of the problem in hand, and labels are true."""

import io
import threading
from collections import Counter, defaultdict
from pathlib import Path

import datasets
import pytest
from PIL import Image as Pillow

from pipelines.config import compose
from pipelines.engines.base import Request
from pipelines.engines.journaled import JournaledEngine
from pipelines.engines.simulated import chain_of, first_wrong_step, parse_question
from pipelines.engines.simulated.shapes import asked_kinds, count_shapes
from pipelines.problems import read_problems
from pipelines.run import Result, Watcher, run
from pipelines.shards import read_rows
from schemas import Image, PathAlone, PathPair, Problem, Tree
from schemas.arrow import SHOW_IMAGES, from_row

pytestmark = pytest.mark.slow

CHOSEN = (
    "engine=simulated problems=shapes problems.num_problems=24 runner.problems_per_shard=12 actor=plain panel=blind"
)
CHOSEN += " search=default pairing=default verify=default export.validation_share=0.3 export.refine_turns=true"
CHOSEN += " export.judge=[pairwise]"
SHOWN = tuple(table for table in SHOW_IMAGES if table not in ("distill", "dpo"))
"""Those two are written where `loop` and `scope` ask for them, see `test_recipes`."""
LEAST_LOCATED = 0.9
"""Of some forty wrong paths; who guessed among a path's steps would be right about 0.2 of them."""


class Made:
    """A run with what its stages asked for."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.shown: dict[str, list[tuple[str, tuple[Image, ...]]]] = defaultdict(list)
        self.problems: dict[str, Problem] = {}
        self.result: Result | None = None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("shapes") / "out")
    settings = compose([*CHOSEN.split(), f"out={made.out}"])
    made.problems = {problem.id: problem for problem in read_problems(settings.problems)}
    sample, lock = JournaledEngine.sample, threading.Lock()

    async def noted(self: JournaledEngine, stage: str, request: Request):
        with lock:
            made.shown[stage].append((request.prompt, request.images))
        return await sample(self, stage, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JournaledEngine, "sample", noted)
        made.result = run(settings, Watcher())
    return made


def test_every_stage_shows_the_images_of_the_problem_in_hand(made):
    images_of = {problem.question: problem.images for problem in made.problems.values()}
    assert len(images_of) == len(made.problems)
    assert set(made.shown) == {"ExpandTrees", "WriteCritiques", "AggregateCritiques", "VerifyCritiques"}
    for asked in made.shown.values():
        for prompt, images in asked:
            (question,) = (question for question in images_of if question in prompt)
            assert images == images_of[question]


def test_nothing_fails_and_every_table_has_rows(made):
    assert made.result.failure_share == 0
    for table in SHOWN:
        assert made.result.books.rows[table] >= 2, table


def test_located_first_errors_are_the_true_ones(made):
    distances: Counter[int] = Counter()
    for row in read_rows(made.out, "pairs"):
        pair = from_row(row, PathPair)
        distances[pair.first_error - first_wrong_step(chain_of(pair.problem), pair.steps)] += 1
    assert distances.total() >= 20
    assert distances[0] / distances.total() >= LEAST_LOCATED, distances


def test_right_paths_have_no_wrong_step(made):
    alone = [from_row(row, PathAlone) for row in read_rows(made.out, "alone")]
    assert alone
    for path in alone:
        assert first_wrong_step(chain_of(path.problem), path.steps) is None


def test_outcomes_are_those_of_counting(made):
    """Every answer that was found right is the number of shapes in the picture, and no other one is."""
    trees = [from_row(row, Tree) for row in read_rows(made.out, "trees")]
    assert {tree.problem.id: tree.problem for tree in trees} == made.problems
    for tree in trees:
        (image,) = tree.problem.images
        counts = count_shapes(image.bytes)
        total = sum(counts[kind] for kind in asked_kinds(tree.problem.question))
        assert total == int(tree.problem.answer) == parse_question(chain_of(tree.problem)).gold
        outcomes = {(node.answer == str(total), node.outcome) for node in tree.nodes if node.kind == "terminal"}
        assert outcomes <= {(True, "correct"), (False, "incorrect")}


@pytest.mark.parametrize("table", SHOWN)
def test_a_table_for_trainers_shows_each_rows_picture(made, table, tmp_path):
    loaded = datasets.load_dataset(str(made.out), table, cache_dir=str(tmp_path))
    rows = [row for split in loaded.values() for row in split]
    assert len(rows) == made.result.books.rows[table]
    for row in rows:
        (picture,) = row["images"]
        (image,) = made.problems[row["origin"]["problem_id"]].images
        assert picture.convert("RGB").tobytes() == Pillow.open(io.BytesIO(image.bytes)).convert("RGB").tobytes()


def test_the_same_command_again_asks_for_nothing(made):
    before = {stage: len(asked) for stage, asked in made.shown.items()}
    again = run(compose([*CHOSEN.split(), f"out={made.out}"]), Watcher())
    assert again.books == made.result.books
    assert {stage: len(asked) for stage, asked in made.shown.items()} == before
