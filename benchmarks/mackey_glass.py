"""Mackey-Glass, figure 2 of the paper: train the models of its four panels, show the table.

    python -m benchmarks.mackey_glass run                            # all of figure 2; goes on where it was
    python -m benchmarks.mackey_glass run --form ahead --panels float a --seeds 0 1
    python -m benchmarks.mackey_glass run --panels float --seeds 0 --epochs 160      # does longer training help?
    python -m benchmarks.mackey_glass samples                        # the series of figure 4
    python -m benchmarks.mackey_glass show

One piece is a panel, a number of bits and a seed: its models, one a delay, are trained together. Every model is judged
on the 52 test series at the epoch of its best validation error, and appended to results/mackey_glass.jsonl when its
piece is done. A finished model is not trained again; an interrupted piece goes on from its last checkpoint (below
runs/mackey_glass). The seed is that of the initialisation, of the order of the batches and of the data.

All quantized models are trained from scratch the paper's way: dynamic scales inside the parallel scan, AQT's range
rule, quantized gradients. The table goes to results/mackey_glass.md; `qs5 reproduce fig2` and `fig4` draw the figures.
"""

import argparse
import csv
import functools
import io
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qs5.cli.malloc import tune_malloc
from qs5.files import write_beside
from qs5.tasks import Task
from qs5.tasks.mackey_glass import copied_channels, load_mackey_glass
from qs5.tasks.metrics import smape, smape_running

RESULTS = Path(__file__).resolve().parents[1] / "results"
RUNS = Path("runs") / "mackey_glass"
TAUS = (1, 9, 17, 25, 33, 41, 49, 57)
BITS = (8, 4, 2, 1)
PANELS = {
    "float": (),
    "a": ("a", "b", "c", "d", "ssm_act"),
    "b": ("a",),
    "c": ("b", "c", "d", "ssm_act"),
    "d": ("ssm_act",),
}
"""What each panel quantizes, by the fields of a spec. Encoder, decoder, norms and GELU are float in all of them."""
COMPONENTS = ("a", "b", "c", "d", "dense", "ssm_act", "act")
WAY = "schedule=parallel,range_rule=aqt,quantized_backward=true"
SAMPLE_TAUS = (1, 17, 57)
SAMPLE_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Models that are trained together: they differ in the delay."""

    panel: str
    bits: int | None
    seed: int
    form: str
    recipe: str
    epochs: int
    taus: tuple[int, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What its records say of it, but for the delay."""
        return {
            "panel": self.panel, "bits": self.bits, "form": self.form, "recipe": self.recipe, "epochs": self.epochs
        }  # fmt: skip

    @property
    def name(self) -> str:
        """Of the folder of its checkpoints."""
        curve = f"{self.panel}{self.bits or ''}"
        taus = "-".join(map(str, self.taus))
        return f"{self.form}-{self.recipe}-{self.epochs}-{curve}-seed{self.seed}-tau{taus}"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, then run pieces, write samples, or show the table."""
    args = _parser().parse_args(argv)
    tune_malloc()
    if args.what == "run":
        _run(args)
    if args.what == "samples":
        _samples(args.results / "mackey_glass_samples.csv")
    else:
        _show(args.results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "show", "samples"))
    parser.add_argument("--panels", nargs="+", choices=PANELS, default=list(PANELS))
    parser.add_argument("--bits", nargs="+", type=int, default=list(BITS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--taus", nargs="+", type=int, default=list(TAUS), help="delays")
    parser.add_argument("--form", choices=("delayed", "ahead"), default="delayed", help="of the task")
    parser.add_argument(
        "--recipe", default="mackey_glass-small", help="mackey_glass: the paper's 1000 epochs"
    )
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    parser.add_argument("--results", type=Path, default=RESULTS, help=argparse.SUPPRESS)
    return parser


# ---- running ----


def _run(args: argparse.Namespace) -> None:
    from qs5.training.recipe import load_recipe

    path = args.results / "mackey_glass.jsonl"
    epochs = args.epochs or load_recipe(args.recipe).train.epochs
    todo = list(_pieces(args, epochs, _finished(path)))
    for n, piece in enumerate(todo, start=1):
        begin = time.monotonic()
        for record in _train(piece):
            _append(path, record)
        shutil.rmtree(RUNS / piece.name, ignore_errors=True)
        print(f"piece {n}/{len(todo)} {piece.name}: {time.monotonic() - begin:.0f} s", flush=True)


def _finished(path: Path) -> set[tuple[Any, ...]]:
    from qs5.training import record

    return {_key(r["extra"], r["seed"], r["extra"]["tau"]) for r in record.read(path)}


def _key(identity: dict[str, Any], seed: int, tau: float) -> tuple[Any, ...]:
    return (*(identity[k] for k in ("panel", "bits", "form", "recipe", "epochs")), seed, tau)


def _pieces(args: argparse.Namespace, epochs: int, finished: set[tuple[Any, ...]]) -> Iterator[Piece]:
    """What is left to do: all curves of one seed before the next seed."""
    for seed in args.seeds:
        for panel in args.panels:
            for bits in [None] if panel == "float" else args.bits:
                whole = Piece(
                    panel=panel, bits=bits, seed=seed, form=args.form, recipe=args.recipe, epochs=epochs,
                    taus=tuple(args.taus),
                )  # fmt: skip
                left = tuple(t for t in args.taus if _key(whole.identity, seed, t) not in finished)
                if left:
                    yield Piece(**{**vars(whole), "taus": left})


def spec_text(panel: str, bits: int | None) -> str:
    """The spec of a curve: `a=8,b=8,...` the paper's way, or `float`."""
    if bits is None:
        return "float"
    widths = (f"{name}={bits if name in PANELS[panel] else 'float'}" for name in COMPONENTS)
    return ",".join([*widths, WAY])


@functools.lru_cache(maxsize=2 * len(TAUS))
def _task(tau: int, form: str, seed: int) -> Task:
    return load_mackey_glass(tau=tau, form=form, seed=seed)


def _train(piece: Piece) -> list[Any]:
    """Train a piece; the records of its models."""
    import jax

    from qs5.model.arithmetic import FloatArithmetic
    from qs5.model.network import init_model
    from qs5.quantization.build import arithmetic_for_spec
    from qs5.quantization.spec import spec_of
    from qs5.training import record, run
    from qs5.training.recipe import load_recipe
    from qs5.training.together import Member, fit_together, outputs_together

    record.commit()  # the code that is loaded now is the code that runs
    begin, text = time.monotonic(), spec_text(piece.panel, piece.bits)
    tasks = [_task(tau, piece.form, piece.seed) for tau in piece.taus]
    recipe = run.complete(load_recipe(piece.recipe), tasks[0])
    options = recipe.train.replace(epochs=piece.epochs, seed=piece.seed)
    arithmetic = (
        FloatArithmetic() if text == "float" else arithmetic_for_spec(spec_of(text), recipe.model, None)
    )
    members = [Member(init_model(jax.random.key(piece.seed), recipe.model), t, piece.seed) for t in tasks]
    state = fit_together(members, arithmetic=arithmetic, options=options, run=RUNS / piece.name)
    outputs = outputs_together(
        state.best_model, tasks, "test", arithmetic=arithmetic, batch_size=options.eval_batch_size
    )
    seconds = (time.monotonic() - begin) / len(tasks)
    curves = np.asarray(state.curves)
    return [
        _record(
            piece, tau, task, text, out,
            best_epoch=state.best_epoch[i], curves=curves[:, :, i], seconds=seconds, recipe=recipe,
        )
        for i, (tau, task, out) in enumerate(zip(piece.taus, tasks, outputs, strict=True))
    ]  # fmt: skip


def _record(
    piece: Piece,
    tau: int,
    task: Task,
    text: str,
    outputs: np.ndarray,
    *,
    best_epoch: int,
    curves: np.ndarray,
    seconds: float,
    recipe: Any,
) -> Any:
    """One model's record. A model that never had a finite validation error has the value NaN: it diverged."""
    from qs5.training import record

    y, m = task.test.y, recipe.model
    value, printed = (f(outputs, y, None) if best_epoch else math.nan for f in (smape, smape_running))
    extra = piece.identity | {
        "tau": tau,
        "spec": text,
        "smape_running": printed,
        "constant": smape(best_constant(task), y, None),
        "copy": smape(copied(task, tau), y, None),
        "length": task.length,
        "batch_size": recipe.train.batch_size,
        "lr": recipe.train.lr,
        "model": {
            name: getattr(m, name) for name in ("layers", "H", "P", "norm", "norm_bias", "gelu", "gate")
        },
        "curves": {
            "train": [round(float(v), 2) for v in curves[:, 0]],
            "validation": [round(float(v), 2) for v in curves[:, 1]],
        },
    }
    return record.RunRecord(
        task=task.name,
        data=task.identity,
        method="fp" if text == "float" else "qat",
        spec=text if text == "float" else f"{text} (parallel)",
        seed=piece.seed,
        split="test",
        metric=task.metric,
        value=value,
        loss=value,
        n=len(task.test),
        selection=task.selection,
        seconds=seconds,
        epoch=best_epoch,
        extra=extra,
    )


def _append(path: Path, record: Any) -> None:
    from qs5.training.record import append

    append(path, record)


# ---- what a forecast is worth that has learnt nothing ----


def best_constant(task: Task) -> np.ndarray:
    """For every channel the constant of least sMAPE on the training targets, in the shape of the test targets."""
    y = task.train.y.reshape(-1, task.train.y.shape[-1])[::7]
    levels = np.quantile(y, np.linspace(0.01, 0.99, 99), axis=0)
    errors = [np.mean(np.abs(y - c) / (np.abs(y) + np.abs(c)), axis=0) for c in levels]
    best = np.take_along_axis(levels, np.argmin(errors, axis=0)[None], axis=0)
    return np.broadcast_to(best[None], task.test.y.shape)


def copied(task: Task, tau: float) -> np.ndarray:
    """What the inputs show of the test targets already, `best_constant` where they show nothing."""
    x, found = task.test.x, np.array(best_constant(task))
    if x.shape[-1] > 1:
        for channel, (source, delay) in copied_channels(tau).items():
            found[:, delay:, channel] = x[:, : x.shape[1] - delay, source]
    return found


# ---- showing ----


def _samples(path: Path) -> None:
    """The data of figure 4: the first steps of one test series at three delays."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for n, tau in enumerate(SAMPLE_TAUS):
        series = _task(tau, "delayed", 0).test.x[0, :SAMPLE_STEPS]
        if n == 0:
            writer.writerow(["tau", "step", *(f"channel_{i}" for i in range(series.shape[1]))])
        writer.writerows([tau, k, *(f"{v:.5f}" for v in row)] for k, row in enumerate(series))
    write_beside(path, text.getvalue().encode())
    print(path)


def _show(results: Path) -> None:
    from qs5.reports.mackey_glass import render
    from qs5.reports.paper_rows import load_paper
    from qs5.reports.results import read_results

    found = [r for r in read_results(results) if r.task.startswith("mackey_glass")]
    text = render(found, load_paper()["figure2"])
    write_beside(results / "mackey_glass.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
