"""A grid of settings as written on a command line, and the cells that it spans.

    spec=W8A8,W4A8 seed=0,1,2 model.norm=batch,layer

One word an axis, its values separated by commas; axes may be joined by commas as well (`spec=W8A8,W4A8,seed=0,1`),
since what holds a '=' begins an axis.

| axis                              | what it sets                                                    | for methods   |
|-----------------------------------|-----------------------------------------------------------------|---------------|
| spec                              | a preset (`qs5 list`), or a file of a spec (.toml)              | all but fp    |
| schedule, range_rule, a, b, ...   | a field of the spec, after its preset                           | all but fp    |
| gelu, gate                        | operators put into the network when it is quantized             | all but fp    |
| qaft.epochs, qaft.lr_factor       | length of the fine-tuning, and its share of the learning rates  | qaft          |
| seed                              | seed of initialisation, order of the data and dropout           | all           |
| model.NAME, train.NAME, data.NAME | a value of the recipe                                           | all           |

A method ignores the axes that are not for it: cells that become the same are one cell. ptq and qaft start from the
float cell of the same recipe and seed, which the grid then holds too, or from a given run.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from qs5.errors import UserError
from qs5.model.config import Gate, Gelu
from qs5.quantization.spec import QuantSpec, spec_of, text_of
from qs5.sweeps.cell import METHODS, Cell
from qs5.training.recipe import Recipe, option_value, parse_recipe
from qs5.training.run import RunInfo

SPEC_FIELDS = tuple(f.name for f in dataclasses.fields(QuantSpec) if f.name not in ("name", "overrides"))
OPERATORS = {"gelu": get_args(Gelu), "gate": get_args(Gate)}
FINE_TUNING = ("qaft.epochs", "qaft.lr_factor")
TABLES = ("model", "train", "data")
EXAMPLE = "write it as --grid spec=W8A8,W4A8 seed=0,1,2"


@dataclass(frozen=True)
class Axis:
    """One setting and the values it takes, as text."""

    name: str
    values: tuple[str, ...]


def parse_axes(words: Sequence[str]) -> tuple[Axis, ...]:
    """Axes from the words of a grid. Raises UserError for anything that no axis can be."""
    found: list[tuple[str, list[str]]] = []
    for piece in (piece.strip() for word in words for piece in word.split(",")):
        name, equals, value = piece.partition("=")
        if not equals and not found:
            raise UserError(f"grid: expected NAME=VALUE,..., got {piece!r}; {EXAMPLE}")
        if equals:
            found.append((name.strip(), []))
        found[-1][1].append(value.strip() if equals else piece)
    axes = tuple(Axis(name, tuple(values)) for name, values in found)
    for axis in axes:
        _check_axis(axis, [a.name for a in axes])
    return axes


def _check_axis(axis: Axis, names: list[str]) -> None:
    if not _is_known(axis.name):
        known = ["spec", "seed", *SPEC_FIELDS, *OPERATORS, *FINE_TUNING, *(f"{t}.NAME" for t in TABLES)]
        raise UserError(f"grid: expected an axis among {', '.join(known)}, got {axis.name!r}")
    if names.count(axis.name) > 1:
        raise UserError(f"grid: expected every axis once, got {axis.name} twice; join its values by commas")
    if "" in axis.values:
        raise UserError(f"grid: expected a value after every '=' and ',' of {axis.name}, got none; {EXAMPLE}")
    twice = sorted({value for value in axis.values if axis.values.count(value) > 1})
    if twice:
        raise UserError(f"grid: expected different values of {axis.name}, got {', '.join(twice)} twice")
    if axis.name in OPERATORS:
        unknown = [value for value in axis.values if value not in OPERATORS[axis.name]]
        if unknown:
            known = " or ".join(OPERATORS[axis.name])
            raise UserError(f"grid: expected {axis.name}={known}, got {unknown[0]!r}")


def _is_known(name: str) -> bool:
    table, dot, key = name.partition(".")
    return name in ("spec", "seed", *SPEC_FIELDS, *OPERATORS, *FINE_TUNING) or bool(
        table in TABLES and dot and key
    )


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a sweep starts from: a recipe, or a trained float run (`info` given)."""

    name: str
    recipe: Recipe
    info: RunInfo | None = None


def cells_of(start: Start, methods: Sequence[str], axes: Sequence[Axis]) -> tuple[Cell, ...]:
    """The cells of a grid, each once, float parents before what starts from them. Raises UserError."""
    _check_methods(start, methods, [axis.name for axis in axes])
    cells: dict[str, Cell] = {}
    for method in methods:
        for values in itertools.product(*(axis.values for axis in axes)):
            settings = dict(zip([axis.name for axis in axes], values, strict=True))
            cell = _cell(start, method, settings)
            for each in (cell.parent, cell) if isinstance(cell.parent, Cell) else (cell,):
                cells.setdefault(each.name, each)
    return tuple(sorted(cells.values(), key=lambda cell: METHODS.index(cell.method)))


def _check_methods(start: Start, methods: Sequence[str], axes: list[str]) -> None:
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        got = unknown[0] if unknown else "none"
        raise UserError(f"expected --method among {', '.join(METHODS)}, got {got!r}")
    if "spec" not in axes and set(methods) - {"fp"}:
        raise UserError(f"grid: expected an axis spec for {', '.join(methods)}, got none; {EXAMPLE}")
    if start.info is None:
        return
    if start.info.spec is not None:
        raise UserError(
            f"{start.name}: expected a recipe or a float run, got one quantized to {start.info.spec['name']}"
        )
    fixed = [axis for axis in axes if axis.partition(".")[0] in TABLES]
    if fixed:
        raise UserError(
            f"{start.name} is trained: {fixed[0]} is what it is; sweep over it from a recipe instead"
        )
    if "fp" in methods or ("seed" in axes and set(methods) == {"ptq"}):
        what = "fp" if "fp" in methods else "seed with ptq"
        raise UserError(f"{start.name} is trained: {what} would train or change nothing; leave it out")


def _cell(start: Start, method: str, settings: dict[str, str]) -> Cell:
    recipe = _recipe(start, settings)
    shown = tuple((k, v) for k, v in settings.items() if _matters(k, method))
    if method == "fp":
        return Cell(recipe_name=start.name, recipe=recipe, method=method, settings=shown)
    parent: Cell | str | None = None
    if method != "qat":
        parent = start.name if start.info is not None else _cell(start, "fp", settings)
    tuning = _numbers(settings) if method == "qaft" else {}
    return Cell(
        recipe_name=start.name,
        recipe=recipe,
        method=method,
        spec=_spec(settings),
        parent=parent,
        gelu=settings.get("gelu"),
        gate=settings.get("gate"),
        epochs=tuning.get("qaft.epochs"),
        lr_factor=tuning.get("qaft.lr_factor", 0.01),
        settings=shown,
    )


def _matters(axis: str, method: str) -> bool:
    """Whether a method looks at an axis."""
    if axis in FINE_TUNING:
        return method == "qaft"
    return method != "fp" or axis == "seed" or axis.partition(".")[0] in TABLES


def _spec(settings: dict[str, str]) -> str:
    """The text of the spec, checked; a file's content instead of its name, so that a cell is what the file said."""
    fields = [f"{name}={value}" for name, value in settings.items() if name in SPEC_FIELDS]
    text = ",".join([settings["spec"], *fields])
    spec = spec_of(text)
    return text_of(spec) if settings["spec"].endswith(".toml") else text


def _numbers(settings: dict[str, str]) -> dict[str, Any]:
    kinds = {"qaft.epochs": int, "qaft.lr_factor": float}
    try:
        found = {name: kind(settings[name]) for name, kind in kinds.items() if name in settings}
    except ValueError as error:
        raise UserError(f"grid: expected numbers for {' and '.join(kinds)}: {error}") from None
    if any(not value > 0 for value in found.values()):
        raise UserError(f"grid: expected {' and '.join(found)} above 0, got {list(found.values())}")
    return found


def _recipe(start: Start, settings: dict[str, str]) -> Recipe:
    """The recipe with the values that a cell sets; unknown keys and wrong types are refused by the recipe."""
    table = dataclasses.asdict(start.recipe)
    for name, text in settings.items():
        head, dot, key = name.partition(".")
        if dot and head in TABLES:
            table[head][key] = option_value(text)
    if "seed" in settings:
        table["train"]["seed"] = option_value(settings["seed"])
    return parse_recipe(
        table, source=f"{start.name} with {' '.join(f'{k}={v}' for k, v in settings.items())}"
    )
