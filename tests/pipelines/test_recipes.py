"""The published systems that ship as configurations: each says what it is, composes, and runs to shards that load."""

from pathlib import Path

import pytest
import yaml
from datasets import load_dataset

from annotators.rounds import NoLoop
from mcts.given import GivenSettings
from mcts.injected import InjectSettings
from mcts.samples import SampleSettings
from pipelines.config import compose, compose_plain, options
from pipelines.errors import UserError
from pipelines.main import main
from pipelines.recipes import calls_a_problem, read_recipe, recipes
from pipelines.run import Watcher, run
from schemas.arrow import CONFIGS, SHOW_IMAGES

NEEDED: dict[str, tuple[str, ...]] = {
    "brittle_pairs": ("problems.num_problems=24",),
    "critique_grpo": ("engine.world.error_low=0.4", "engine.world.error_high=0.7"),
}
"""What a recipe must be told besides, to compose, or to find what it is there for: few simulated problems are easy."""
ELSEWHERE = {"conv_code", "critic_lean", "gui_critic"}
"""Recipes for problems that the simulated world has none of, whose runs have a test of their own."""
CONF = Path(__file__).parents[2] / "conf"
WORLD = ("problems=simulated", "engine=simulated", "actor=plain", "problems.num_problems=12", "seed=3")


def test_a_head_is_read_line_by_line():
    content = (
        "# @package _global_\n# ABC (arXiv 1234.56789): does this.\n# Writes: sft, rl.\n#\n# Exact: all.\nrecipe: abc\n"
    )
    recipe = read_recipe("abc", content)
    assert recipe.title == "ABC (arXiv 1234.56789): does this."
    assert recipe.writes == ("sft", "rl")
    assert recipe.text == "ABC (arXiv 1234.56789): does this.\nWrites: sft, rl.\n\nExact: all."


@pytest.mark.parametrize("content", ["recipe: abc\n", "# @package _global_\n# ABC: does this.\nrecipe: abc\n"])
def test_a_head_without_a_title_or_tables_is_an_error(content):
    with pytest.raises(ValueError, match=r"conf/recipe/abc\.yaml must begin with"):
        read_recipe("abc", content)


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_a_recipe_says_what_it_is_and_composes(recipe):
    assert set(recipe.writes) <= set(CONFIGS), recipe.writes
    assert len(recipe.text.splitlines()) >= 3, "what is exact, and what is ours?"
    words = [f"recipe={recipe.name}", *WORLD, *NEEDED.get(recipe.name, ())]
    assert compose_plain(words)["recipe"] == recipe.name
    settings = compose(words)
    assert settings.config_digest() != compose(WORLD).config_digest()


def test_what_is_said_on_the_command_line_wins_over_the_recipe():
    assert compose(["recipe=omegaprm", "search.max_searches=3"]).search.max_searches == 3
    assert compose(["recipe=omegaprm", "search=mmc"]).search == compose(["search=mmc"]).search


def of_own_paths() -> list[str]:
    """Recipes that say where paths come from."""
    heads = {name: yaml.safe_load((CONF / "recipe" / f"{name}.yaml").read_text()) for name in options("recipe")}
    return [name for name, own in heads.items() if any("override /paths" in choice for choice in own["defaults"])]


@pytest.mark.parametrize("name", of_own_paths())
@pytest.mark.parametrize("option", ["given", "search", "injected", "samples"])
def test_paths_of_another_source_take_the_recipes_place(name, option):
    words = [f"recipe={name}", "engine=simulated", f"paths={option}", *(["paths.path=FILE"] * (option == "given"))]
    settings = compose(words)
    assert (settings.recipe, settings.paths.__struct_config__.tag) == (name, option)
    assert settings.panel == compose([f"recipe={name}"]).panel, "what is not of the group stays the recipe's"


def test_of_the_recipes_keys_those_that_the_chosen_option_has_stay():
    given = compose(["recipe=deepcritic", "engine=simulated", "paths=given", "paths.path=given.jsonl"]).paths
    assert given == GivenSettings(path="given.jsonl", locate="completions", completions_per_step=8)
    assert compose(["recipe=auto_math_critique", "paths=samples"]).paths == SampleSettings()
    assert compose(["recipe=nft", "paths=injected"]).paths == InjectSettings(num_samples=16)
    assert compose(["recipe=conv_code", "loop=off"]).loop == NoLoop()
    assert compose(["recipe=interactive", "loop=teacher_sums"]).loop.max_rounds == 5
    with pytest.raises(UserError, match="Key 'num_samples' is not in struct"):
        compose(["recipe=nft", "paths=given", "paths.path=FILE", "paths.num_samples=3"])


@pytest.mark.parametrize("word", ["recipe=[spc,cft]", "paths=[search,samples]"])
def test_one_option_of_a_group_and_not_several(word):
    name, _, value = word.partition("=")
    with pytest.raises(UserError) as caught:
        compose([word])
    assert str(caught.value) == f"{name} takes one option, got {value}; give {name}=NAME"


def test_the_name_of_a_recipe_alone_shapes_nothing():
    assert compose(["recipe=omegaprm"]).config_digest() == compose(["search=omegaprm"]).config_digest()


def test_they_are_listed_and_told_in_full(capsys):
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(f" {name} " in listed for name in options("recipe"))
    assert main(["recipes", "omegaprm"]) == 0
    assert "Ours: pairing" in capsys.readouterr().out
    assert main(["recipes", "nosuch"]) == 2
    assert "there is no recipe 'nosuch'; there are " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("search.max_located=x", "search.max_located: Expected `int`, got `str`"),
        ("engine=vllm engine.model=m", "--cost tries recipes on the simulated world, and engine is m; leave it out"),
        (
            "+engines.big.kind=openai +engines.big.url=http://h +engines.big.model=m",
            "--cost tries recipes on the simulated world, and engines.big is m; leave it out",
        ),
    ],
)
def test_a_wrong_setting_is_an_error_and_no_cost(words, message):
    with pytest.raises(UserError) as caught:
        calls_a_problem("spc", words.split())
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["conv_code", "critic_lean", "gui_critic"])
def test_a_recipe_for_other_problems_has_no_cost_in_the_simulated_world(name):
    assert calls_a_problem(name) is None


def test_the_page_has_a_line_for_each():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    for recipe in recipes():
        tables = ", ".join(f"`{table}`" for table in recipe.writes)
        assert f"| `{recipe.name}` | {recipe.title} | {tables} |" in page


def test_an_unknown_recipe_is_named_with_those_there_are():
    with pytest.raises(UserError, match="omegaprm"):
        compose(["recipe=nosuch"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [recipe for recipe in recipes() if recipe.name not in ELSEWHERE], ids=lambda recipe: recipe.name
)
def test_a_recipe_runs_to_shards_that_load(recipe, tmp_path):
    words = [f"recipe={recipe.name}", *WORLD, *NEEDED.get(recipe.name, ())]
    result = run(compose([*words, f"out={tmp_path / 'out'}"]), Watcher())
    assert not result.unfinished
    assert not result.failure_share
    assert all(stage.balanced for stage in result.books.stages)
    for table in recipe.writes:
        assert result.books.rows[table] > 0, f"{recipe.name} is there for {table}, and wrote no row of it"
        assert load_dataset(str(tmp_path / "out"), table, split="train", cache_dir=str(tmp_path / "cache")).num_rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["critic_v", "dress", "llava_critic", "mmc"])
def test_a_recipe_for_images_shows_them_in_what_it_writes(name, tmp_path):
    (recipe,) = (recipe for recipe in recipes() if recipe.name == name)
    words = [f"recipe={name}", *WORLD, "problems=shapes", f"out={tmp_path / 'out'}"]
    result = run(compose(words), Watcher())
    assert not result.unfinished
    assert not result.failure_share
    for table in recipe.writes:
        if table in SHOW_IMAGES:
            rows = load_dataset(str(tmp_path / "out"), table, split="train", cache_dir=str(tmp_path / "cache"))
            assert all(len(row["images"]) == 1 for row in rows)
            assert rows.num_rows > 0, f"{name} is there for {table}, and wrote no row of it"
