"""The published systems that ship as configurations: each says what it is, composes, and runs to shards that load."""

from pathlib import Path

import pytest
from datasets import load_dataset

from pipelines.config import compose, compose_plain, options
from pipelines.errors import UserError
from pipelines.main import main
from pipelines.recipes import read_recipe, recipes
from pipelines.run import Watcher, run
from schemas.arrow import CONFIGS, SHOW_IMAGES

NEEDED: dict[str, tuple[str, ...]] = {
    "brittle_pairs": ("problems.num_problems=24",),
    "critique_grpo": ("engine.world.error_low=0.4", "engine.world.error_high=0.7"),
}
"""What a recipe must be told besides, to compose, or to find what it is there for: few simulated problems are easy."""
ELSEWHERE = {"conv_code"}
"""Recipes for problems that the simulated world has none of, whose runs have a test of their own."""
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
