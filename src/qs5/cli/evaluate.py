"""`qs5 evaluate RUN_OR_ZOO`: loss and metric on a split."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import tyro

from qs5.cli import common
from qs5.training import methods, record
from qs5.training.run import RunInfo


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Judge a run or zoo model on a split of its task."""

    split: Literal["train", "validation", "test"] = "test"
    data_dir: str | None = None
    """Where the data sets are (else $QS5_DATA)."""
    json: bool = False
    """End with one line of JSON."""
    record: bool = True
    """Append the result to the run's records.jsonl (never for zoo models)."""


def run(argv: list[str]) -> int:
    """Parse, load, evaluate, print."""
    name, rest = common.take_positional(argv, "qs5 evaluate RUN_OR_ZOO [options]", "a run or zoo model")
    args = tyro.cli(Arguments, args=rest, prog=f"qs5 evaluate {name}")
    model, info = common.open_run(name)
    task = common.load_for_judging(info.recipe, args.data_dir, args.split)
    with common.counting(f"{name} on {args.split}") as progress:
        result = methods.judge(model, task, info=info, split=args.split, progress=progress)
    if args.record and name not in common.zoo.names():
        record.append(common.find_run(name) / "records.jsonl", result)
    common.console.print(
        f"{name}: {task.metric} {result.value:.4f}, loss {result.loss:.4f} on {result.n} {args.split} sequences "
        f"({result.spec}, {result.seconds:.0f} s)",
        soft_wrap=True,
    )
    if args.json:
        print(json.dumps(_summary(result, info)))
    return 0


def _summary(result: record.RunRecord, info: RunInfo) -> dict[str, Any]:
    return {
        result.metric: result.value,
        "n": result.n,
        "loss": result.loss,
        "backend": "jax",
        "spec": "float" if info.spec is None else info.spec["name"],
        "schedule": None if info.spec is None else info.spec["schedule"],
        "method": info.method,
        "task": result.task,
        "split": result.split,
    }
