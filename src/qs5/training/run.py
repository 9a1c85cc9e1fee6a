"""A run: the folder that one training leaves behind.

run.json            recipe, method, spec, identity of the data, how to evaluate
model.safetensors   the selected model
records.jsonl       one `RunRecord` a line: every epoch on validation, every reported number
checkpoints/        resumable training state
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qs5.errors import UserError
from qs5.files import write_beside
from qs5.model.arithmetic import Arithmetic, FloatArithmetic
from qs5.model.config import ModelConfig
from qs5.model.files import ModelFile, load_model, save_model
from qs5.model.network import S5Model
from qs5.quantization.build import arithmetic_for_spec
from qs5.quantization.grids import plan_from_json
from qs5.quantization.spec import from_json as spec_from_json, to_json as spec_to_json
from qs5.tasks.task import Task
from qs5.training.recipe import Recipe, parse_recipe

FORMAT = "qs5-run/1"


class RunError(UserError):
    """A folder that is no usable run: one line with expected, got, what to do."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What `run.json` holds."""

    recipe: Recipe
    method: str = "fp"
    spec: dict[str, Any] | None = None
    """The quantization spec as a dictionary; None for a float run."""
    plan: dict[str, Any] | None = None
    """Calibrated static grids (`GridPlan.to_json`); None for a float run or dynamic scales."""
    data: str = ""
    """Identity (SHA-256) of the task's data."""
    encoding: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    parent: str | None = None
    """The run or zoo model a fine-tuning started from."""
    made: dict[str, str] = field(default_factory=dict)
    """Command, commit, machine and time (`record.origin`) of a post-training quantization, which has no epochs whose
    records say it; empty for a training."""


def info_of(recipe: Recipe, task: Task, **more: Any) -> RunInfo:
    """The description of a run of `recipe` on `task`."""
    return RunInfo(
        recipe=recipe,
        data=task.identity,
        # As JSON gives it back: lists, not tuples.
        encoding=json.loads(json.dumps(dataclasses.asdict(task.encoding))),
        classes=task.classes,
        **more,
    )


def to_json(info: RunInfo) -> dict[str, Any]:
    """Plain JSON values of a run's description."""
    return {"format": FORMAT, **dataclasses.asdict(info)}


def from_json(table: dict[str, Any], *, source: str) -> RunInfo:
    """The inverse of `to_json`. Raises RunError when it is something else."""
    got = table.get("format") if isinstance(table, dict) else table
    if got != FORMAT:
        raise RunError(f"{source}: expected format {FORMAT}, got {got!r}; it is no qs5 run")
    fields = {k: v for k, v in table.items() if k != "format"}
    unknown = sorted(set(fields) - {f.name for f in dataclasses.fields(RunInfo)})
    if unknown or not isinstance(fields.get("recipe"), dict):
        raise RunError(
            f"{source}: expected a recipe, got keys {', '.join(fields)}"
            + (f" (unknown: {', '.join(unknown)})" if unknown else "")
            + "; train again, or use the version of qs5 that wrote it"
        )
    fields["recipe"] = parse_recipe(fields["recipe"], source=source)
    if fields.get("classes") is not None:
        fields["classes"] = tuple(fields["classes"])
    return RunInfo(**fields)


def write_run(folder: Path, info: RunInfo, model: S5Model | None = None) -> None:
    """Write (or write again) run.json and, if given, the selected model."""
    table = to_json(info)
    write_beside(folder / "run.json", (json.dumps(table, indent=1) + "\n").encode())
    if model is not None:
        save_model(folder / "model.safetensors", model, info=table)


def read_run(folder: Path) -> RunInfo:
    """The description of a run. Raises RunError when the folder is none."""
    path = folder / "run.json"
    try:
        table = json.loads(path.read_text())
    except OSError as error:
        raise RunError(
            f"{folder}: expected a run (a folder with run.json), got none; train one first"
        ) from error
    except json.JSONDecodeError as error:
        raise RunError(f"{path}: not JSON ({error}); the file is damaged, train again") from error
    return from_json(table, source=str(path))


def read_model(folder: Path) -> ModelFile:
    """The selected model of a run."""
    return load_model(folder / "model.safetensors")


def complete(recipe: Recipe, task: Task) -> Recipe:
    """The recipe with the sizes, and the head where it follows from them, that the data decides."""
    head = "retrieval" if task.pairs else recipe.model.head
    head = "regression" if task.objective == "regression" else head
    model: ModelConfig = recipe.model.replace(d_in=task.d_in, d_out=task.d_out, head=head)
    return dataclasses.replace(recipe, model=model)


def arithmetic_of(info: RunInfo, config: ModelConfig) -> Arithmetic:
    """The arithmetic that a run's model is evaluated under."""
    if info.spec is None:
        return FloatArithmetic()
    plan = None if info.plan is None else plan_from_json(info.plan)
    return arithmetic_for_spec(spec_from_json(info.spec), config, plan)


def check_resumable(folder: Path, info: RunInfo) -> bool:
    """Whether `folder` already holds this very run, to be continued.

    Raises RunError when it holds another one: nothing is overwritten.
    """
    if not (folder / "run.json").exists():
        return False
    old, new = (json.loads(json.dumps(to_json(_with_all_fields(i)))) for i in (read_run(folder), info))
    # The grids are a result of the run where it calibrates as it goes; who asked for it, and when, is not the run.
    differing = sorted(key for key in new if key not in ("plan", "made") and old[key] != new[key])
    if differing:
        raise RunError(
            f"{folder}: holds another run (different {', '.join(differing)}); choose another folder with "
            "--out, or remove it"
        )
    return True


def _with_all_fields(info: RunInfo) -> RunInfo:
    """What the spec of an earlier version did not say yet has the value that it had then: the default."""
    if info.spec is None:
        return info
    return dataclasses.replace(info, spec=spec_to_json(spec_from_json(info.spec)))
