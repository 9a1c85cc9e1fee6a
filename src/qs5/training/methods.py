"""The verbs of training: train (float), and PTQ, QAFT, QAT. All but PTQ are one loop under some arithmetic.

| method | starts from       | learning rate | epochs        | scales (sequential)                       |
|--------|-------------------|---------------|---------------|-------------------------------------------|
| fp     | initialisation    | recipe        | recipe        | -                                         |
| ptq    | a float model     | -             | 0             | calibrated on the float model             |
| qaft   | a float model     | 1 % of recipe | 10 % of recipe| calibrated on the float model, then fixed |
| qat    | initialisation    | recipe        | recipe        | calibrated anew every 50 steps            |

Source: Q-S5 sections 3.3 and 4.3, appendix.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from qs5.errors import UserError
from qs5.model.arithmetic import Arithmetic, FloatArithmetic
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model, init_model
from qs5.quantization.build import arithmetic_for_spec, plan_of, prepared
from qs5.quantization.calibration import CalibrationStats, calibrate
from qs5.quantization.grids import GridPlan
from qs5.quantization.reconstruction import ReconstructionOptions, reconstruct
from qs5.quantization.spec import QuantSpec, from_json, to_json
from qs5.quantization.static import StaticArithmetic
from qs5.tasks.batches import batches, permutation
from qs5.tasks.task import Task
from qs5.training import record, run
from qs5.training.distillation import Teacher, teacher_of
from qs5.training.evaluate import encode, evaluate
from qs5.training.loop import ArithmeticFor, EpochReport, Observer, fit, steps_per_epoch
from qs5.training.options import TrainOptions
from qs5.training.recipe import Recipe

CALIBRATION_EXAMPLES = 512
CALIBRATION_BATCH = 32
QAT_CALIBRATION_EXAMPLES = 128
"""Fewer, since QAT calibrates often: 3 % of its time on half-size sMNIST."""
RECONSTRUCTION_STEPS = 200_000
"""Time steps of calibration data that weights are reconstructed from, at most: of sMNIST 224 sequences, 7 batches."""
QUIET = Observer()


def replaced_operators(config: ModelConfig, *, gelu: str | None, gate: str | None) -> ModelConfig:
    """The network with other pointwise functions: the names of `Gelu` and `Gate`; None leaves one as it is.

    Raises ValueError for an unknown name.
    """
    changes = {k: v for k, v in {"gelu": gelu, "gate": gate}.items() if v is not None}
    return config.replace(**changes)


def with_operators(model: S5Model, *, gelu: str | None, gate: str | None) -> S5Model:
    """The same parameters in such a network. Raises ValueError for an unknown name."""
    return dataclasses.replace(model, config=replaced_operators(model.config, gelu=gelu, gate=gate))


def train(recipe: Recipe, task: Task, *, out: Path, observer: Observer = QUIET) -> S5Model:
    """Train a float model from scratch in the folder `out`, continuing an interrupted run of the same recipe.

    Returns the model of the best validation metric, which is also in `out/model.safetensors`; the test
    split is not touched.
    """
    recipe = run.complete(recipe, task)
    model = init_model(jax.random.key(recipe.train.seed), recipe.model)
    return fit_run(
        model,
        task,
        info=run.info_of(recipe, task),
        arithmetic_for=lambda _: FloatArithmetic(),
        out=out,
        observer=observer,
    )


class Quantized(NamedTuple):
    """A model as its run folder has it, and the description with which it is judged."""

    model: S5Model
    info: run.RunInfo


def ptq(
    model: S5Model,
    task: Task,
    spec: QuantSpec,
    *,
    parent: run.RunInfo,
    name: str,
    out: Path,
    draw: int = 0,
) -> Quantized:
    """Post-training quantization: calibrate (sequential specs) and write the run.

    Where the spec's codes want it, modes are reordered, which leaves the float function as it is; where the spec has
    its weights reconstructed, they change (`qs5.quantization.reconstruction`).
    parent, name: description and name of the float run that `model` comes from. draw: see `calibration_stats`.
    """
    model, plan = fitted(model, task, spec, draw=draw)
    info = dataclasses.replace(
        parent,
        recipe=dataclasses.replace(parent.recipe, model=model.config),
        method="ptq",
        spec=to_json(spec),
        plan=None if plan is None else plan.to_json(),
        parent=name,
        made=record.origin(),
    )
    arithmetic_for_spec(spec, model.config, plan)  # refuse what cannot be computed before writing anything
    run.check_resumable(out, info)
    run.write_run(out, info, model)
    return Quantized(model, info)


def qaft(
    model: S5Model,
    task: Task,
    spec: QuantSpec,
    *,
    parent: run.RunInfo,
    name: str,
    options: TrainOptions,
    out: Path,
    observer: Observer = QUIET,
) -> S5Model:
    """Quantization-aware fine-tuning of a float model; `options` as from `qaft_options`.

    It starts from the float weights; with rounding=reconstructed from those that PTQ would give (which start is better
    when: docs/recurrent-bits.md). Eigenvalues in polar codes, and those that weights were reconstructed for, keep the
    codes of the float model: what is tuned is the rest.
    Raises UserError for layers that cannot be reconstructed, where that is asked for.
    """
    model = prepared(model, spec)
    reconstructed = spec.rounding == "reconstructed"
    start, plan = fitted(model, task, spec) if reconstructed else (model, calibrated_plan(model, task, spec))
    options = options.replace(
        freeze_eigenvalues=options.freeze_eigenvalues or reconstructed or spec.form == "polar"
    )
    arithmetic = arithmetic_for_spec(spec, model.config, plan)
    recipe = dataclasses.replace(parent.recipe, model=model.config, train=options)
    info = run.info_of(recipe, task, method="qaft", spec=to_json(spec), parent=name)
    return fit_run(
        start,
        task,
        info=info,
        arithmetic_for=lambda _: arithmetic,
        out=out,
        observer=observer,
        teacher=teacher_of(model, options),
    )


def qaft_options(
    options: TrainOptions,
    *,
    lr_factor: float = 0.01,
    epochs: int | None = None,
    distill: float = 0.0,
    distill_layers: float = 0.0,
) -> TrainOptions:
    """The float run's options with 1 % of the learning rates and 10 % of the epochs (both settable).

    Batch norm keeps its running statistics: it is folded in the deployed network.
    distill, distill_layers: weights of what the float network says (`qs5.training.distillation`).
    """
    epochs = max(1, round(0.1 * options.epochs)) if epochs is None else epochs
    return options.replace(
        epochs=epochs,
        ssm_lr=options.ssm_lr * lr_factor,
        lr=options.lr * lr_factor,
        warmup_epochs=min(options.warmup_epochs, 0.1 * epochs),
        freeze_statistics=True,
        distill=distill,
        distill_layers=distill_layers,
    )


def qat(recipe: Recipe, task: Task, spec: QuantSpec, *, out: Path, observer: Observer = QUIET) -> S5Model:
    """Quantization-aware training from scratch. Raises UserError for a spec that asks for reconstructed weights."""
    if spec.rounding == "reconstructed":
        raise UserError(
            f"spec {spec.name}: rounding=reconstructed needs a float model, which qat has not; expected rounding=auto "
            "or nearest, or --method ptq or qaft"
        )
    recipe = run.complete(recipe, task)
    model = prepared(init_model(jax.random.key(recipe.train.seed), recipe.model), spec)
    info = run.info_of(recipe, task, method="qat", spec=to_json(spec))

    def arithmetic_for(current: S5Model) -> Arithmetic:
        plan = calibrated_plan(current, task, spec, examples=QAT_CALIBRATION_EXAMPLES)
        return arithmetic_for_spec(spec, current.config, plan)

    return fit_run(model, task, info=info, arithmetic_for=arithmetic_for, out=out, observer=observer)


def fitted(
    model: S5Model,
    task: Task,
    spec: QuantSpec,
    *,
    draw: int = 0,
    options: ReconstructionOptions | None = None,
) -> tuple[S5Model, GridPlan | None]:
    """What post-training quantization makes of a float model: weights as the spec wants them, and its grids."""
    model = prepared(model, spec)
    plan = calibrated_plan(model, task, spec, draw=draw)
    if plan is None or not spec.reconstructs(model.config):
        return model, plan
    arithmetic = arithmetic_for_spec(spec, model.config, plan)
    assert isinstance(arithmetic, StaticArithmetic)
    examples = min(max(RECONSTRUCTION_STEPS // task.length, CALIBRATION_BATCH), CALIBRATION_EXAMPLES)
    order = permutation(len(task.train), seed=draw, epoch=0)[:examples]
    return reconstruct(model, list(_calibration_batches(task, order)), arithmetic, options=options), plan


def calibrated_plan(
    model: S5Model, task: Task, spec: QuantSpec, *, examples: int = CALIBRATION_EXAMPLES, draw: int = 0
) -> GridPlan | None:
    """The static grids of a spec for this model (`prepared` for it); None where scales are dynamic."""
    if spec.schedule == "parallel":
        return None
    return plan_of(model, calibration_stats(model, task, examples=examples, draw=draw), spec)


def calibration_stats(
    model: S5Model, task: Task, *, examples: int = CALIBRATION_EXAMPLES, draw: int = 0
) -> CalibrationStats:
    """Ranges of the float model over training examples: draw number `draw` of them, whole sequences."""
    order = permutation(len(task.train), seed=draw, epoch=0)[:examples]
    return calibrate(model, _calibration_batches(task, order), data=task.train.identity)


def _calibration_batches(task: Task, order: np.ndarray) -> Iterator[tuple[Any, Any]]:
    size = min(CALIBRATION_BATCH, len(order))
    for batch in batches(task.train, order=order, batch_size=size, drop_last=True):
        yield encode(jax.numpy.asarray(batch.x), task.encoding), batch.lengths


def fit_run(
    model: S5Model,
    task: Task,
    *,
    info: run.RunInfo,
    arithmetic_for: ArithmeticFor,
    out: Path,
    observer: Observer = QUIET,
    teacher: Teacher | None = None,
) -> S5Model:
    """Fit `model` and keep the run's folder up to date after every epoch."""
    steps_per_epoch(task, info.recipe.train)  # an impossible recipe must not leave a folder behind
    record.commit()  # the code that is loaded now is the code that runs
    if not run.check_resumable(out, info):
        run.write_run(out, info)

    def epoch(report: EpochReport, current: S5Model, arithmetic: Arithmetic) -> None:
        record.drop_epochs(out / "records.jsonl", first=report.epoch)
        record.append(out / "records.jsonl", _epoch_record(report, task, info))
        if report.best:
            run.write_run(out, _with_plan(info, arithmetic), current)
        observer.epoch(report, current, arithmetic)

    watched = Observer(step=observer.step, epoch=epoch)
    state = fit(
        model,
        task,
        arithmetic_for=arithmetic_for,
        options=info.recipe.train,
        run=out,
        observer=watched,
        teacher=teacher,
    )
    return state.best_model


def _with_plan(info: run.RunInfo, arithmetic: Arithmetic) -> run.RunInfo:
    """The description with the grids that the selected model was judged under."""
    plan = arithmetic.plan.to_json() if isinstance(arithmetic, StaticArithmetic) else None
    return dataclasses.replace(info, plan=plan)


def _epoch_record(report: EpochReport, task: Task, info: run.RunInfo) -> record.RunRecord:
    return record.RunRecord(
        **_identity(task, info),
        split="validation",
        value=report.metric,
        loss=report.loss,
        n=len(task.validation),
        selection="none",
        seconds=report.seconds,
        epoch=report.epoch,
        train_loss=report.train_loss,
    )


def _identity(task: Task, info: run.RunInfo) -> dict[str, Any]:
    return {
        "task": task.name,
        "data": info.data,
        "method": info.method,
        "spec": "float" if info.spec is None else f"{info.spec['name']} ({info.spec['schedule']})",
        "seed": info.recipe.train.seed,
        "metric": task.metric,
    }


def judge(
    model: S5Model,
    task: Task,
    *,
    info: run.RunInfo,
    split: str = "test",
    progress: Callable[[int, int], None] | None = None,
) -> record.RunRecord:
    """Evaluate a run's selected model on one split, under its own arithmetic, and return the record of it."""
    begin = time.monotonic()
    result = evaluate(
        model,
        task.splits[split],
        task=task,
        arithmetic=run.arithmetic_of(info, model.config),
        batch_size=info.recipe.train.eval_batch_size,
        progress=progress,
    )
    return record.RunRecord(
        **_identity(task, info),
        split=split,
        value=result.metric,
        loss=result.loss,
        n=result.n,
        selection=task.selection,
        seconds=time.monotonic() - begin,
        extra=_scale(task, info) | {"confusion": result.confusion},
    )


def diverged(task: Task, *, info: run.RunInfo, split: str = "test") -> record.RunRecord:
    """The record of a run whose training gave no model: metric and loss are NaN."""
    return record.RunRecord(
        **_identity(task, info),
        split=split,
        value=math.nan,
        loss=math.nan,
        n=len(task.splits[split]),
        selection=task.selection,
        seconds=0.0,
        extra=_scale(task, info) | {"diverged": True},
    )


def _scale(task: Task, info: run.RunInfo) -> dict[str, Any]:
    """What a reader of a number wants to know of the run behind it: sizes, operators, how long it was trained."""
    m = info.recipe.model
    return {
        "spec": "float" if info.spec is None else info.spec["name"],
        "widths": "float" if info.spec is None else from_json(info.spec).widths(m),
        "range_rule": None if info.spec is None else info.spec["range_rule"],
        "parent": info.parent,
        "epochs": info.recipe.train.epochs,
        "length": task.length,
        # Not a path: it says where, not what; the record's `data` identifies the numbers.
        "options": {k: v for k, v in info.recipe.data.items() if k != "path"},
        "model": {
            name: getattr(m, name) for name in ("layers", "H", "P", "norm", "norm_bias", "gelu", "gate")
        },
    }
