"""`qs5 evaluate RUN_OR_ZOO`: loss and metric on a split."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import tyro

from qs5.cli import common, integers
from qs5.errors import UserError
from qs5.search.measure import judge
from qs5.training import methods, record
from qs5.training.run import RunInfo


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Judge a run, an integer model or a zoo model on a split of its task."""

    split: Literal["train", "validation", "test"] = "test"
    data_dir: str | None = None
    """Where the data sets are (else $QS5_DATA)."""
    backend: Literal["auto", "native", "reference", "c99", "onnx"] = "auto"
    """What runs an integer model (auto: native, else the reference)."""
    data: tuple[str, ...] = ()
    """Options of an integer model's task as key=value, such as path=mine.csv, over those of its run."""
    json: bool = False
    """End with one line of JSON."""
    record: bool = True
    """Append the result to the run's records.jsonl (never for zoo models)."""


def run(argv: list[str]) -> int:
    """Parse, load, evaluate, print."""
    name, rest = common.take_positional(argv, "qs5 evaluate RUN_OR_ZOO [options]", "a run or zoo model")
    args = tyro.cli(Arguments, args=rest, prog=f"qs5 evaluate {name}")
    if integers.is_integer_model(name):
        return _evaluate_integers(name, args)
    common.find_run(name)
    if args.backend != "auto" or args.data:
        raise UserError(
            "--backend and --data: expected an integer model (a .qs5 file), got the run of a training, which runs in "
            "JAX on its own data; leave them out, or lower the run first"
        )
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


def _evaluate_integers(name: str, args: Arguments) -> int:
    """Judge an integer model on an engine."""
    model, engine, backend = integers.open_engine(name, args.backend)
    trained = tuple(model.description.provenance.get("options", "").split())
    options = common.key_values(trained) | common.key_values(args.data)
    task = common.load_part(model.description.task, options, args.data_dir, args.split)
    split = task.splits[args.split]
    with common.counting(f"{name} on {args.split}") as progress:
        judged = judge(model, task, split, engine=engine, progress=progress)
    value, seconds = judged.metric, judged.seconds
    spec = model.description.spec
    common.console.print(
        f"{name}: {task.metric} {value:.4f} on {len(split)} {args.split} sequences ({spec}, {backend} engine, "
        f"{seconds:.1f} s)",
        soft_wrap=True,
    )
    if args.json:
        row = {task.metric: value, "n": len(split), "backend": backend, "spec": spec, "split": args.split}
        print(json.dumps(row | {"task": task.name, "seconds": seconds}))
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
