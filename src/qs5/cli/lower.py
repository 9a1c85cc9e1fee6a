"""`qs5 lower RUN`: a quantized run becomes an integer model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from qs5.cli import common
from qs5.errors import UserError
from qs5.integer import content_hash, ops as o, save
from qs5.integer.cost import costs
from qs5.integer.model import RAW_RANGES, IntegerModel
from qs5.integer.signals import Signal
from qs5.lowering.lower import (
    DEFAULT_MAX_LENGTH,
    Labels,
    Preprocessing,
    input_differences,
    lower,
    obstacles,
    quantize_input,
)
from qs5.model.network import S5Model
from qs5.quantization.grids import GridPlan, plan_from_json
from qs5.quantization.spec import from_json
from qs5.reports.tables import terminal
from qs5.search.workshop import preprocessing_of
from qs5.tasks import Task
from qs5.training import record
from qs5.training.run import RunInfo

HEADER = ("signal", "op", "reads", "channels", "bits", "scale", "weight bits", "bytes")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Turn a quantized run into an integer-only model, one file that holds all it needs."""

    out: Path | None = None
    """The file to write (default: model.qs5 in the run's folder)."""
    max_length: int = DEFAULT_MAX_LENGTH
    """The longest sequence to be proved free of overflow."""
    data_dir: str | None = None
    """Where the data sets are (else $QS5_DATA)."""


def run(argv: list[str]) -> int:
    """Parse, lower, write, print the table of sites."""
    argv = ["--out" if word == "-o" else word for word in argv]
    name, rest = common.take_positional(argv, "qs5 lower RUN [-o model.qs5]", "a quantized run")
    args = tyro.cli(Arguments, args=rest, prog=f"qs5 lower {name}")
    model, info = common.open_run(name)
    lowered = lowered_run(
        model,
        info,
        common.load_for_judging(info.recipe, args.data_dir, "test"),
        name,
        max_length=args.max_length,
    )
    path = args.out or common.find_run(name) / "model.qs5"
    save(path, lowered)
    common.console.print(terminal(f"{name}: {lowered.description.widths}", HEADER, _rows(lowered)))
    ratio = 4 * model.parameter_count / path.stat().st_size
    common.console.print(
        f"{path}: {path.stat().st_size} bytes, {ratio:.2f} times smaller than its {model.parameter_count} float32 "
        f"parameters; SHA-256 of the content {content_hash(lowered)}",
        soft_wrap=True,
    )
    return 0


def lowered_run(model: S5Model, info: RunInfo, task: Task, name: str, *, max_length: int) -> IntegerModel:
    """The integer model of a quantized run. Raises UserError with every reason why there is none."""
    if info.spec is None:
        raise UserError(
            f"{name}: expected a quantized run, got a float one; quantize it first: qs5 quantize {name}"
        )
    preprocessing = preprocessing_of(task)
    spec = from_json(info.spec)
    if reasons := obstacles(model, spec):
        raise UserError(f"{name}: cannot lower this run: " + "; ".join(reasons))
    if info.plan is None:
        raise UserError(f"{name}: expected calibrated grids, got none; quantize it again")
    plan = plan_from_json(info.plan)
    if isinstance(preprocessing, Preprocessing):
        _report_input(preprocessing, plan, model.config.d_in)
    return lower(
        model,
        spec=spec,
        plan=plan,
        preprocessing=preprocessing,
        labels=labels_of(info, task, run=name),
        max_length=max_length,
    )


def _report_input(p: Preprocessing, plan: GridPlan, d_in: int) -> None:
    """Say where the integer input quantizer rounds otherwise than float32 did, if anywhere."""
    if p.dtype not in RAW_RANGES:
        return
    grid = dict(plan.grids)["input"]
    out = Signal(name="input", channels=d_in, bits=grid.format.bits, signed=grid.format.signed)
    differing = input_differences(quantize_input(p, out, grid)[0], p, grid)
    if differing:
        common.console.print(
            f"note: {differing} raw input values round to the neighbouring code of the training's"
        )


def labels_of(info: RunInfo, task: Task, *, run: str) -> Labels:
    """What the integer model of a run says of itself beside its numbers."""
    return Labels(
        task=info.recipe.task,
        classes=task.classes,
        units=task.units,
        channels=task.channels,
        provenance=_provenance(info, run),
    )


def _provenance(info: RunInfo, run: str) -> dict[str, str]:
    """Where an integer model comes from, names without folders."""
    found = {
        "run": Path(run).name,
        "method": info.method,
        "parent": "" if info.parent is None else Path(info.parent).name,
        "data": info.data,
        # Not a path: that says where the data is, not which.
        "options": " ".join(
            f"{key}={_text(value)}" for key, value in info.recipe.data.items() if key != "path"
        ),
        "commit": record.commit(),
    }
    return {key: value for key, value in found.items() if value}


def _text(value: Any) -> str:
    """An option's value as `--data` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rows(model: IntegerModel) -> Sequence[Sequence[str]]:
    q = model.input
    first = (q.out.name, q.source, "raw", str(q.out.channels), _bits(q.out), _scale(q.out), "-", "-")
    rows = [
        (
            c.op.out.name,
            c.op.kind,
            ", ".join(name.split(".", 2)[-1] for name in o.inputs_of(c.op)),
            str(c.op.out.channels),
            _bits(c.op.out),
            _scale(c.op.out),
            _weight_bits(c.op),
            str(c.bytes),
        )
        for c in costs(model)
    ]
    return [first, *rows]


def _bits(signal: Signal) -> str:
    return f"{'' if signal.signed else 'u'}{signal.bits}"


def _scale(signal: Signal) -> str:
    return "a mode each" if signal.exponent is None else f"2^{signal.exponent}"


def _weight_bits(op: o.Op) -> str:
    """The stored width of an op's weights; of polar codes decay and angle."""
    if isinstance(op, o.PolarRecurrence):
        return f"{op.decay_bits}+{op.angle_bits}"
    return str(getattr(op, "bits", "-"))
