"""What several verbs share: arguments, tasks, progress bars."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qs5 import tasks
from qs5.errors import UserError
from qs5.tasks import Task
from qs5.training.loop import EpochReport, Observer, StepReport
from qs5.training.recipe import Recipe

console = Console()


def take_positional(argv: list[str], usage: str, what: str) -> tuple[str, list[str]]:
    """The first argument and the others. Raises UserError when there is none."""
    if not argv or argv[0].startswith("-"):
        raise UserError(f"expected {what} first; usage: {usage}")
    return argv[0], argv[1:]


def key_values(pairs: tuple[str, ...]) -> dict[str, str]:
    """("a=1", ...) as a dictionary. Raises UserError for anything without '='."""
    split = [pair.partition("=") for pair in pairs]
    bad = [pair for pair, (_, equals, _) in zip(pairs, split, strict=True) if not equals]
    if bad:
        raise UserError(f"expected key=value, got {bad[0]!r}")
    return {key: value for key, _, value in split}


def load_task(recipe: Recipe, data_dir: str | None) -> Task:
    """The recipe's task from disk."""
    return tasks.load(recipe.task, data_dir=data_dir, **recipe.data)


def progress_bar() -> Progress:
    """Bar with count, text and time left; a plain silent one where the output is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextlib.contextmanager
def training_progress(task: Task, epochs: int) -> Iterator[Observer]:
    """An observer that shows loss, validation metric and time left, and prints one line an epoch."""
    with progress_bar() as bar:
        row = bar.add_task("training", total=None, note="")

        def step(report: StepReport) -> None:
            done = (report.epoch - 1) * report.steps + report.step
            bar.update(row, total=epochs * report.steps, completed=done, note=f"loss {report.loss:.4f}")

        def epoch(report: EpochReport, _: object) -> None:
            star = " *" if report.best else ""
            console.print(
                f"epoch {report.epoch}/{epochs}  train loss {report.train_loss:.4f}  validation loss "
                f"{report.loss:.4f}  {task.metric} {report.metric:.4f}{star}  {report.seconds:.1f} s"
            )

        yield Observer(step=step, epoch=epoch)
