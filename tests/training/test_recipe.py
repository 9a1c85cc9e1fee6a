"""Recipes and training options: every shipped file parses, and nothing unknown is accepted."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from qs5.errors import UserError
from qs5.training.options import TrainOptions
from qs5.training.recipe import RecipeError, load_recipe, parse_recipe, recipe_folder, recipe_names


def refused(table: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(table, source="mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml")
    assert "\n" not in message
    return message


def test_every_shipped_recipe_parses(repository: Path):
    assert recipe_folder() == repository / "recipes"
    assert "smnist" in recipe_names()
    for name in recipe_names():
        assert load_recipe(name) == load_recipe(str(repository / "recipes" / f"{name}.toml"))


def test_the_smnist_recipe_is_the_papers_model():
    recipe = load_recipe("smnist")
    model = recipe.model
    assert (recipe.task, model.layers, model.H, model.P, model.J) == ("smnist", 4, 96, 128, 1)
    assert (model.activation, model.norm, model.dropout) == ("half_glu1", "batch", 0.1)
    assert (recipe.train.batch_size, recipe.train.weight_decay) == (50, 0.01)


def test_tables_become_options():
    table = {"task": "custom", "model": {"H": 8}, "train": {"epochs": 3, "lr": 1}, "data": {"path": "a.npz"}}
    recipe = parse_recipe(table, source="mine.toml")
    assert (recipe.task, recipe.model.H, recipe.train.epochs, recipe.train.lr) == ("custom", 8, 3, 1)
    assert recipe.data == {"path": "a.npz"}
    assert recipe.train == TrainOptions(epochs=3, lr=1)


def test_a_recipe_is_its_own_table():
    recipe = load_recipe("smnist")
    assert parse_recipe(dataclasses.asdict(recipe), source="again") == recipe


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({}, 'expected a key task = "<name of a task>"'),
        ({"task": 3}, 'expected a key task = "<name of a task>"'),
        ({"task": "a", "modle": {}}, "unknown key modle; known: data, model, task, train"),
        ({"task": "a", "model": {"width": 3, "depth": 1}}, "[model]: unknown key depth, width; known: "),
        ({"task": "a", "train": {"epoch": 3}}, "[train]: unknown key epoch; known: "),
        ({"task": "a", "model": 3}, "expected a table [model], got model = 3"),
        ({"task": "a", "data": "x"}, "expected a table [data], got data = 'x'"),
        ({"task": "a", "model": {"norm": "group"}}, "norm must be one of batch, layer, got 'group'"),
        ({"task": "a", "model": {"H": "96"}}, "H must be an integer, got '96'"),
        ({"task": "a", "train": {"epochs": "many"}}, "epochs must be an integer, got 'many'"),
        ({"task": "a", "train": {"opt_config": "fast"}}, "opt_config must be one of standard, "),
        ({"task": "a", "train": {"clip_norm": "1"}}, "clip_norm must be a number or none, got '1'"),
    ],
)
def test_what_is_no_recipe_is_refused(table: dict[str, Any], sentence: str):
    assert sentence in refused(table)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "expected epochs >= 1, got 0"),
        ({"batch_size": 0}, "expected batch_size >= 1, got 0"),
        ({"eval_batch_size": 0}, "expected eval_batch_size >= 1, got 0"),
        ({"warmup_epochs": 11}, "expected 0 <= warmup_epochs <= epochs, got 11, 10"),
        ({"warmup_epochs": -1}, "expected 0 <= warmup_epochs <= epochs, got -1, 10"),
        ({"seed": -1}, "expected seed >= 0, got -1"),
        ({"lr": -0.1}, "expected lr >= 0, got -0.1"),
        ({"weight_decay": float("nan")}, "expected weight_decay >= 0, got nan"),
        ({"epochs": 2.0}, "epochs must be an integer, got 2.0"),
        ({"patience": 1.5}, "patience must be an integer or none, got 1.5"),
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=r"^training options: ") as caught:
        TrainOptions(**changes)
    assert sentence in str(caught.value)


def test_files_that_are_no_recipe_are_refused(tmp_path: Path):
    broken, folder, latin = tmp_path / "broken.toml", tmp_path / "folder.toml", tmp_path / "latin.toml"
    broken.write_text("task = ")
    folder.mkdir()
    latin.write_bytes(b"task = '\xe9'")
    for path in (broken, folder, latin):
        with pytest.raises(RecipeError, match=f"^{path}: not a TOML file"):
            load_recipe(str(path))
    with pytest.raises(RecipeError, match=r"no recipe 'mnist': expected one of .*smnist.*, or a path"):
        load_recipe("mnist")
    with pytest.raises(RecipeError, match="no recipe"):
        load_recipe(str(tmp_path / "none.toml"))
