"""The verbs of training: float training here; PTQ, QAT and QAFT are the same loop under another arithmetic."""

import time
from collections.abc import Callable
from pathlib import Path

import jax

from qs5.model.arithmetic import Arithmetic, FloatArithmetic
from qs5.model.network import S5Model, init_model
from qs5.tasks.task import Task
from qs5.training import record, run
from qs5.training.evaluate import evaluate
from qs5.training.loop import EpochReport, Observer, fit
from qs5.training.recipe import Recipe


def train(
    recipe: Recipe, task: Task, *, out: Path, observer: Observer = Observer()  # noqa: B008  (immutable)
) -> S5Model:
    """Train a float model from scratch in the folder `out`, continuing an interrupted run of the same recipe.

    Returns the model of the best validation metric, which is also in `out/model.safetensors`; the test
    split is not touched.
    """
    recipe = run.complete(recipe, task)
    info = run.info_of(recipe, task)
    model = init_model(jax.random.key(recipe.train.seed), recipe.model)
    return fit_run(model, task, info=info, arithmetic=FloatArithmetic(), out=out, observer=observer)


def fit_run(
    model: S5Model,
    task: Task,
    *,
    info: run.RunInfo,
    arithmetic: Arithmetic,
    out: Path,
    observer: Observer = Observer(),  # noqa: B008  (immutable)
) -> S5Model:
    """Fit `model` and keep the run's folder up to date after every epoch."""
    run.check_resumable(out, info)
    run.write_run(out, info)

    def epoch(report: EpochReport, current: S5Model) -> None:
        record.append(out / "records.jsonl", _epoch_record(report, task, info))
        if report.best:
            run.write_run(out, info, current)
        observer.epoch(report, current)

    watched = Observer(step=observer.step, epoch=epoch)
    state = fit(model, task, arithmetic=arithmetic, options=info.recipe.train, run=out, observer=watched)
    run.write_run(out, info, state.best_model)
    return state.best_model


def _epoch_record(report: EpochReport, task: Task, info: run.RunInfo) -> record.RunRecord:
    return record.RunRecord(
        task=task.name,
        data=info.data,
        method=info.method,
        spec="float" if info.spec is None else str(info.spec.get("name", "custom")),
        seed=info.recipe.train.seed,
        split="validation",
        metric=task.metric,
        value=report.metric,
        loss=report.loss,
        n=len(task.validation),
        selection="none",
        seconds=report.seconds,
        epoch=report.epoch,
        train_loss=report.train_loss,
    )


def judge(
    model: S5Model,
    task: Task,
    *,
    info: run.RunInfo,
    arithmetic: Arithmetic,
    split: str = "test",
    progress: Callable[[int, int], None] | None = None,
) -> record.RunRecord:
    """Evaluate a selected model on one split and return the record of it."""
    begin = time.monotonic()
    result = evaluate(
        model,
        task.splits[split],
        task=task,
        arithmetic=arithmetic,
        batch_size=info.recipe.train.eval_batch_size,
        progress=progress,
    )
    return record.RunRecord(
        task=task.name,
        data=info.data,
        method=info.method,
        spec="float" if info.spec is None else str(info.spec.get("name", "custom")),
        seed=info.recipe.train.seed,
        split=split,
        metric=task.metric,
        value=result.metric,
        loss=result.loss,
        n=result.n,
        selection=task.selection,
        seconds=time.monotonic() - begin,
    )
