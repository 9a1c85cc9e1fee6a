"""Recipes: one TOML file a task, tables [model], [train] and [data]; unknown keys are an error."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qs5.errors import UserError
from qs5.model.config import ModelConfig
from qs5.training.options import TrainOptions


class RecipeError(UserError):
    """A recipe that cannot be used: one line with expected, got, what to do."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training run, but for the numbers in the data.

    `model.d_in` and `model.d_out` are placeholders: the task's data decides them.
    """

    task: str
    model: ModelConfig
    train: TrainOptions
    data: dict[str, Any] = field(default_factory=dict)
    """Options of the task's loader (`qs5.tasks`)."""


def recipe_folder() -> Path:
    """The folder of recipes: inside an installed package, or beside `src` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in recipe_folder().glob("*.toml")))


def load_recipe(name: str) -> Recipe:
    """A recipe by its name, or by the path of a TOML file. Raises RecipeError."""
    path = Path(name) if name.endswith(".toml") else recipe_folder() / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        known = ", ".join(recipe_names())
        raise RecipeError(
            f"no recipe {name!r}: expected one of {known}, or a path to a .toml file"
        ) from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a TOML file: {error}") from error
    return parse_recipe(table, source=str(path))


def parse_recipe(table: dict[str, Any], *, source: str) -> Recipe:
    """A recipe from the tables of a TOML file; source: what errors begin with.

    Raises RecipeError for unknown keys, a task or tables that are missing or of another type, and values out of range.
    """
    _refuse_unknown(table, {"task", "model", "train", "data"}, source)
    if not isinstance(table.get("task"), str):
        raise RecipeError(f'{source}: expected a key task = "<name of a task>"')
    for name in ("model", "train", "data"):
        if not isinstance(table.get(name, {}), dict):
            raise RecipeError(f"{source}: expected a table [{name}], got {name} = {table[name]!r}")
    try:
        model = _build(ModelConfig, {"d_in": 1, "d_out": 1, **table.get("model", {})}, f"{source} [model]")
        train = _build(TrainOptions, table.get("train", {}), f"{source} [train]")
    except ValueError as error:
        raise error if isinstance(error, RecipeError) else RecipeError(f"{source}: {error}") from error
    return Recipe(task=table["task"], model=model, train=train, data=dict(table.get("data", {})))


def option_value(text: str) -> bool | int | float | str:
    """The value of an option as written on a command line: a number or truth value where TOML reads one, else text.

    Text in quotes is text whatever it holds: `"2024"`.
    """
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _build(kind: type, table: dict[str, Any], source: str) -> Any:
    _refuse_unknown(table, {f.name for f in dataclasses.fields(kind)}, source)
    return kind(**table)


def _refuse_unknown(table: dict[str, Any], known: set[str], source: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise RecipeError(f"{source}: unknown key {', '.join(unknown)}; known: {', '.join(sorted(known))}")
