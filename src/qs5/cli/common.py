"""What several verbs share: arguments, runs, tasks, progress bars."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qs5 import tasks, zoo
from qs5.cli import integers
from qs5.errors import UserError
from qs5.model.network import S5Model
from qs5.tasks import Task
from qs5.training import run as runs
from qs5.training.loop import EpochReport, Observer, StepReport
from qs5.training.recipe import Recipe, option_value
from qs5.training.record import peak_mib

# Piped output is for files and other programs: wide enough that no table is folded.
console = Console(width=None if sys.stdout.isatty() else 160)


def take_positional(argv: list[str], usage: str, what: str) -> tuple[str, list[str]]:
    """The first argument and the others; prints the usage for --help. Raises UserError when there is none."""
    if argv and argv[0] in ("-h", "--help"):
        console.print(f"usage: {usage}\nThe options depend on {what}: give it, then --help.", markup=False)
        raise SystemExit(0)
    if not argv or argv[0].startswith("-"):
        raise UserError(f"expected {what} first; usage: {usage}")
    return argv[0], argv[1:]


def key_values(pairs: tuple[str, ...]) -> dict[str, Any]:
    """("a=1", ...) as a dictionary: values as `option_value` reads them, lists "x,y" of columns or units as tuples.

    Raises UserError for anything without '='.
    """
    split = [pair.partition("=") for pair in pairs]
    bad = [pair for pair, (_, equals, _) in zip(pairs, split, strict=True) if not equals]
    if bad:
        raise UserError(f"expected key=value, got {bad[0]!r}")
    return {key: _option(key, value) for key, _, value in split}


def _option(key: str, value: str) -> Any:
    if key.endswith(("columns", "units")):
        return tuple(value.split(","))
    return option_value(value)


def find_run(name: str) -> Path:
    """The folder of a run: a zoo entry's name, or a path. Raises UserError."""
    folder = zoo.find(name) or Path(name)
    if not (folder / "run.json").is_file():
        integers.refuse_integer_model(name)
        raise UserError(
            f"{name}: expected a run (a folder with run.json) or a zoo model "
            f"({', '.join(zoo.names()) or 'none yet'}), got neither; train one with qs5 train"
        )
    return folder


def open_run(name: str) -> tuple[S5Model, runs.RunInfo]:
    """Model and description of a run or zoo entry."""
    folder = find_run(name)
    info = runs.read_run(folder)
    return runs.read_model(folder).model, info


def load_task(recipe: Recipe, data_dir: str | None) -> Task:
    """The recipe's task, from disk."""
    return tasks.load(recipe.task, data_dir=data_dir, **recipe.data)


def load_for_judging(recipe: Recipe, data_dir: str | None, split: str) -> Task:
    """As `load_task`, but with the embedded part of a data set where that holds the split and calibration data.

    So a zoo model is calibrated and judged on the same images on every machine, with nothing to download.
    """
    return load_part(recipe.task, dict(recipe.data), data_dir, split)


def load_part(name: str, options: dict[str, Any], data_dir: str | None, split: str) -> Task:
    """A task by name for judging on `split`: the embedded part of its data where that is enough."""
    if split == "test" and _has_embedded_part(name):
        options.setdefault("parts", "embedded")
    return tasks.load(name, data_dir=data_dir, **options)


def _has_embedded_part(name: str) -> bool:
    return "parts" in inspect.signature(tasks.loader(name)).parameters


def progress_bar() -> Progress:
    """Bar with count, text and time left; silent where the output is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


@contextlib.contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for `evaluate`: call it with (done, all)."""
    with progress_bar() as bar:
        row = bar.add_task(description, total=None, note="")
        yield lambda done, total: bar.update(row, completed=done, total=total)


def step_row(bar: Progress, description: str, epochs: int) -> Callable[[StepReport], None]:
    """A new row of a bar for the steps of a training: what to call after every step."""
    row = bar.add_task(description, total=None, note="")

    def step(report: StepReport) -> None:
        done = (report.epoch - 1) * report.steps + report.step
        bar.update(row, total=epochs * report.steps, completed=done, note=f"loss {report.loss:.4f}")

    return step


@contextlib.contextmanager
def training_progress(task: Task, epochs: int, *, tensorboard: Path | None = None) -> Iterator[Observer]:
    """An observer that shows loss, validation metric and time left, and prints one line an epoch.

    tensorboard: also write event files there (needs the extra `tensorboard`).
    """
    with progress_bar() as bar, _event_writer(tensorboard) as writer:

        def epoch(report: EpochReport, *_: object) -> None:
            star = " *" if report.best else ""
            console.print(
                f"epoch {report.epoch}/{epochs}  train loss {report.train_loss:.4f}  validation loss "
                f"{report.loss:.4f}  {task.metric} {report.metric:.4f}{star}  {report.seconds:.1f} s{_memory()}",
                soft_wrap=True,
            )
            writer(report)

        yield Observer(step=step_row(bar, "training", epochs), epoch=epoch)


def _memory() -> str:
    """Peak memory of the process, for the line of an epoch."""
    peak = peak_mib()
    return "" if peak is None else f"  peak {peak:,} MiB"


@contextlib.contextmanager
def _event_writer(folder: Path | None) -> Iterator[Callable[[EpochReport], None]]:
    """Writes a report as events; whole on disk when the context ends."""
    if folder is None:
        yield lambda _: None
        return
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard needs the extra: pip install 'qs5[tensorboard]'") from error
    writer = SummaryWriter(str(folder))

    def write(report: EpochReport) -> None:
        for name, value in report._asdict().items():
            writer.add_scalar(name, float(value), report.epoch)
        writer.flush()

    # Events are written by a thread of their own: closing waits for it.
    with contextlib.closing(writer):
        yield write
