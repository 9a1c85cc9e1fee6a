"""One cell of a sweep: its settings, its identity, its folder, and how to run it in this process.

The folder of a cell is a run (`qs5.training.run`) with two files more:

cell.json     the settings that its identity is the hash of
failed.json   exit code and last words of a process that failed; gone when the cell is tried again

A cell is finished when records.jsonl holds a result on the test split. Where quantized training diverges, that is the
result: NaN. A float cell that diverges has failed, since others would start from it.
"""

import dataclasses
import fcntl
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qs5.errors import DivergedError
from qs5.files import write_beside
from qs5.quantization.spec import spec_of
from qs5.tasks.task import Task
from qs5.training import methods, record, run
from qs5.training.loop import Observer
from qs5.training.recipe import Recipe

METHODS = ("fp", "qat", "ptq", "qaft")
"""In the order in which a sweep runs them."""
State = Literal["done", "failed", "waiting"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One run of a sweep.

    recipe: complete but for the sizes that the data decides, the cell's seed in it.
    parent: the float cell that ptq and qaft start from, or the name of a run that exists.
    epochs: of fine-tuning; None: a tenth of the parent's.
    settings: the axes of the grid that this cell looks at, with its values, for tables.
    """

    recipe_name: str
    recipe: Recipe
    method: str
    spec: str | None = None
    parent: "Cell | str | None" = None
    gelu: str | None = None
    gate: str | None = None
    epochs: int | None = None
    lr_factor: float = 0.01
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def seed(self) -> int:
        """Seed of the training, or of the parent's."""
        return self.recipe.train.seed

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the result, but for data and code.

        Without what has its default: a version of qs5 with one option more finds the cells of this one.
        """
        recipe = {"task": self.recipe.task, "data": self.recipe.data}
        recipe |= {name: _set_values(getattr(self.recipe, name)) for name in ("model", "train")}
        parent = self.parent.name if isinstance(self.parent, Cell) else self.parent
        fields = {k: v for k, v in _set_values(self).items() if k not in ("settings", "recipe_name")}
        return fields | {"recipe": recipe, "parent": parent}

    @functools.cached_property
    def name(self) -> str:
        """Name of the folder: what a reader looks for, and a hash of the identity."""
        text = json.dumps(self.identity, sort_keys=True)
        head = [] if self.spec is None else [self.spec.split(",")[0].replace("=", "")]
        return "-".join([self.method, *head, f"s{self.seed}", hashlib.sha256(text.encode()).hexdigest()[:8]])


def _set_values(options: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    values = {f.name: (getattr(options, f.name), f.default) for f in dataclasses.fields(options)}
    return {name: value for name, (value, default) in values.items() if value != default}


def result_of(folder: Path) -> dict[str, Any] | None:
    """The record of a finished cell on the test split, or None."""
    found = [r for r in record.read(folder / "records.jsonl") if r["split"] == "test"]
    return found[-1] if found else None


def failure_of(folder: Path) -> dict[str, Any] | None:
    """What failed.json says, or None."""
    path = folder / "failed.json"
    return json.loads(path.read_text()) if path.exists() else None


def state_of(folder: Path) -> State:
    """Whether a cell is finished, has failed, or is still to be run (to its end)."""
    if result_of(folder) is not None:
        return "done"
    return "failed" if failure_of(folder) is not None else "waiting"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """One process at a time in a cell; others wait. The system lets go of it when a process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


LoadTask = Callable[[Recipe, str], Task]
"""(recipe, method) -> its task."""


def run_cell(
    cell: Cell,
    cells: Path,
    *,
    load: LoadTask,
    find: Callable[[str], Path],
    observer: Observer = methods.QUIET,
) -> dict[str, Any]:
    """Run a cell in the folder of all cells, to its end, or go on with it; return its record.

    find: the folder of a run by name, for a parent that is no cell. A finished cell is not run again.
    """
    folder = cells / cell.name
    with held(folder):
        if (done := result_of(folder)) is not None:
            return done
        (folder / "failed.json").unlink(missing_ok=True)
        write_beside(folder / "cell.json", (json.dumps(cell.identity, indent=1) + "\n").encode())
        task = load(cell.recipe, cell.method)
        parent = None if cell.parent is None else _parent_folder(cell, cells, find)
        judged = _result(cell, parent, folder, task, observer)
        extra = judged.extra | {"recipe": cell.recipe_name, "cell": cell.name} | _parent_epochs(parent)
        if cell.method == "qaft":
            extra["lr_factor"] = cell.lr_factor
        record.append(folder / "records.jsonl", dataclasses.replace(judged, extra=extra))
    return result_of(folder) or {}


def _result(
    cell: Cell, parent: Path | None, folder: Path, task: Task, observer: Observer
) -> record.RunRecord:
    """The record on the test split; for quantized training that diverged the one that says so."""
    try:
        _train(cell, parent, folder, task, observer)
    except DivergedError:
        if cell.method == "fp":
            raise
        return methods.diverged(task, info=run.read_run(folder))
    return methods.judge(run.read_model(folder).model, task, info=run.read_run(folder))


def _parent_folder(cell: Cell, cells: Path, find: Callable[[str], Path]) -> Path:
    return cells / cell.parent.name if isinstance(cell.parent, Cell) else find(str(cell.parent))


def _parent_epochs(parent: Path | None) -> dict[str, int]:
    return {} if parent is None else {"parent_epochs": run.read_run(parent).recipe.train.epochs}


def _train(cell: Cell, parent: Path | None, folder: Path, task: Task, observer: Observer) -> None:
    """The run of a cell, by its method."""
    if cell.method == "fp":
        methods.train(cell.recipe, task, out=folder, observer=observer)
        return
    spec = spec_of(cell.spec or "")
    if parent is None:
        config = methods.replaced_operators(cell.recipe.model, gelu=cell.gelu, gate=cell.gate)
        recipe = dataclasses.replace(cell.recipe, model=config)
        methods.qat(recipe, task, spec, out=folder, observer=observer)
        return
    info = run.read_run(parent)
    model = methods.with_operators(run.read_model(parent).model, gelu=cell.gelu, gate=cell.gate)
    # Beside each other the name is enough, wherever the sweep's folder is moved to.
    name = cell.parent.name if isinstance(cell.parent, Cell) else str(cell.parent)
    if cell.method == "ptq":
        methods.ptq(model, task, spec, parent=info, name=name, out=folder)
        return
    options = methods.qaft_options(info.recipe.train, lr_factor=cell.lr_factor, epochs=cell.epochs)
    options = options.replace(seed=cell.seed)
    methods.qaft(model, task, spec, parent=info, name=name, options=options, out=folder, observer=observer)
