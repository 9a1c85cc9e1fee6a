"""`qs5 demo`: the whole way on real data, in about five minutes on two cores."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from qs5.cli import common
from qs5.model.network import S5Model
from qs5.quantization.spec import spec_of
from qs5.reports.tables import percent, terminal
from qs5.tasks import Task
from qs5.training import methods
from qs5.training.recipe import load_recipe
from qs5.training.run import RunInfo, read_run

SPECS = ("W8A8Abar16", "W8A8", "W4A8SSM8", "W4A8", "W2A8")
QAFT_LR_FACTOR = 0.1
QAFT_EPOCHS = 6
ZOO_MODEL = "smnist-float"
ZOO_SPEC = "W8A8Abar16"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train on digits, quantize five ways, then judge the zoo's sMNIST model before and after quantization."""

    zoo: bool = True
    """Also the sMNIST part: 10,000 images, twice."""
    epochs: int | None = None
    """Epochs on digits (default: the recipe's)."""


def run(argv: list[str]) -> int:
    """Both parts, each ending in a table."""
    args = tyro.cli(Arguments, args=argv, prog="qs5 demo")
    with tempfile.TemporaryDirectory() as folder:
        _digits(Path(folder), args.epochs)
        if args.zoo:
            _zoo(Path(folder))
    return 0


def _digits(folder: Path, epochs: int | None) -> None:
    recipe = load_recipe("digits")
    options = recipe.train if epochs is None else recipe.train.replace(epochs=epochs, warmup_epochs=0.0)
    task = common.load_task(recipe, None)
    common.console.print(
        f"1. Train an S5 on digits: {len(task.train)} sequences of {task.length} pixels, {options.epochs} epochs"
    )
    out = folder / "float"
    with _bar(task, options.epochs, "float") as observer:
        model = methods.train(replace(recipe, train=options), task, out=out, observer=observer)
    info = read_run(out)
    full = methods.judge(model, task, info=info).value
    rows = [("float", "-", percent(full), percent(full))]
    for name in SPECS:
        rows.append(_quantized(model, info, task, name, folder))
    title = (
        f"digits, {len(task.test)} test sequences, accuracy in %. QAFT: {QAFT_EPOCHS} epochs at "
        f"{QAFT_LR_FACTOR:g} of the learning rate"
    )
    common.console.print(terminal(title, ("spec", "bits", "PTQ", "QAFT"), rows))


def _quantized(
    model: S5Model, info: RunInfo, task: Task, name: str, folder: Path
) -> tuple[str, str, str, str]:
    spec = spec_of(name)
    ptq = methods.ptq(model, task, spec, parent=info, name="float", out=folder / f"ptq-{name}")
    options = methods.qaft_options(info.recipe.train, lr_factor=QAFT_LR_FACTOR, epochs=QAFT_EPOCHS)
    out = folder / f"qaft-{name}"
    with _bar(task, options.epochs, f"QAFT {name}") as observer:
        tuned = methods.qaft(
            model, task, spec, parent=info, name="float", options=options, out=out, observer=observer
        )
    before = methods.judge(ptq.model, task, info=ptq.info).value
    after = methods.judge(tuned, task, info=read_run(out)).value
    return name, spec.widths(), percent(before), percent(after)


@contextlib.contextmanager
def _bar(task: Task, epochs: int, what: str) -> Iterator[methods.Observer]:
    """One bar a training, and one line when it is done."""
    best = [0.0]
    with common.progress_bar() as bar:

        def epoch(report: common.EpochReport, *_: object) -> None:
            best[0] = max(best[0], report.metric)

        yield methods.Observer(step=common.step_row(bar, what, epochs), epoch=epoch)
    common.console.print(f"   {what}: best validation {task.metric} {100 * best[0]:.2f} %")


def _zoo(folder: Path) -> None:
    model, info = common.open_run(ZOO_MODEL)
    task = common.load_for_judging(info.recipe, None, "test")
    common.console.print(
        f"2. The zoo's {ZOO_MODEL} ({model.parameter_count:,} parameters) on MNIST's {len(task.test):,} test images, "
        f"before and after post-training quantization to {ZOO_SPEC}",
        soft_wrap=True,
    )
    spec = spec_of(ZOO_SPEC)
    ptq = methods.ptq(model, task, spec, parent=info, name=ZOO_MODEL, out=folder / "zoo")
    rows = []
    for label, (judged, description) in (("float", (model, info)), (ZOO_SPEC, ptq)):
        with common.counting(label) as progress:
            result = methods.judge(judged, task, info=description, progress=progress)
        rows.append((label, percent(result.value), f"{result.loss:.4f}", f"{result.seconds:.0f}"))
    header = ("model", "accuracy %", "loss", "seconds")
    common.console.print(terminal("sMNIST, 10,000 test images", header, rows))
