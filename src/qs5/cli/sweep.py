"""`qs5 sweep RECIPE_OR_RUN --grid ... -o FOLDER`: many runs, each once, several at a time."""

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID, TextColumn

from qs5.cli import common
from qs5.errors import UserError
from qs5.files import write_beside
from qs5.reports.tables import markdown, terminal
from qs5.sweeps import grid
from qs5.sweeps.cell import METHODS, Cell, failure_of, result_of, run_cell, state_of
from qs5.sweeps.runner import Listener, Progress as CellProgress, join_sweep, run_cells
from qs5.sweeps.summary import header_of, rows_of, write_records
from qs5.tasks import Task
from qs5.training import run as runs
from qs5.training.recipe import Recipe, load_recipe


def run(argv: list[str]) -> int:
    """Parse, plan, run, print the table. 1 if a cell failed."""
    args = _parser().parse_args(argv)
    if args.jobs < 1:
        raise UserError(f"expected --jobs at least 1, got {args.jobs}")
    cells = grid.cells_of(_start(args.start), _words(args.method), grid.parse_axes(args.grid))
    if args.only is not None:
        return _run_one(cells, args)
    if args.list:
        _list(cells, args)
        return 0
    _run_all(cells, argv, args)
    return _conclude(cells, argv, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qs5 sweep",
        description="run every cell of a grid once; the same command again goes on where it was\n\n"
        + (grid.__doc__ or "").split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("start", metavar="RECIPE_OR_RUN", help="a recipe, or a float run (ptq, qaft, qat)")
    parser.add_argument("--grid", nargs="+", default=[], metavar="AXIS=VALUE,...", help="see above")
    parser.add_argument(
        "--method", nargs="+", default=["ptq"], metavar="METHOD", help=f"{', '.join(METHODS)}; default: ptq"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="the sweep's folder: a run a cell")
    parser.add_argument(
        "--jobs", "-j", type=int, default=1, help="processes at once, which share the processors (default: 1)"
    )
    parser.add_argument("--retry", action="store_true", help="try failed cells again")
    parser.add_argument(
        "--list", action="store_true", help="show the cells and how far they are, run nothing"
    )
    parser.add_argument(
        "--only", metavar="CELL", help="run this one cell in this process (for a cluster's job arrays)"
    )
    parser.add_argument("--data-dir", help="where the data sets are (else $QS5_DATA)")
    return parser


def _words(values: Sequence[str]) -> list[str]:
    """`ptq,qaft` and `ptq qaft` mean the same; each once."""
    return list(dict.fromkeys(word for value in values for word in value.split(",") if word))


def _start(name: str) -> grid.Start:
    """A run by its folder or its name in the zoo, else a recipe."""
    if common.zoo.find(name) or (Path(name) / "run.json").is_file():
        info = runs.read_run(common.find_run(name))
        return grid.Start(name=name, recipe=info.recipe, info=info)
    return grid.Start(name=name, recipe=load_recipe(name))


def _loader(data_dir: str | None) -> Callable[[Recipe, str], Task]:
    def load(recipe: Recipe, method: str) -> Task:
        if method == "ptq":
            return common.load_for_judging(recipe, data_dir, "test")
        return common.load_task(recipe, data_dir)

    return load


def _run_one(cells: Sequence[Cell], args: argparse.Namespace) -> int:
    """A single cell, here; its float parent must be finished."""
    cell = next((c for c in cells if c.name == args.only), None)
    if cell is None:
        raise UserError(f"no cell {args.only!r} in this grid; --list shows the names")
    if isinstance(cell.parent, Cell) and result_of(args.out / cell.parent.name) is None:
        raise UserError(f"{cell.name} starts from {cell.parent.name}, which is not finished; run that first")
    join_sweep()
    load = _loader(args.data_dir)
    result = run_cell(cell, args.out, load=load, find=common.find_run)
    common.console.print(f"{cell.name}: {_result_text(result)}", soft_wrap=True)
    return 0


def _run_all(cells: Sequence[Cell], argv: list[str], args: argparse.Namespace) -> None:
    to_run = [c for c in cells if state_of(args.out / c.name) != "done"]
    if to_run:
        # Missing data are found, or fetched, once and before anything runs. ptq may do with a part of them.
        for cell in {(repr(c.recipe.data), c.method == "ptq"): c for c in to_run}.values():
            _loader(args.data_dir)(cell.recipe, cell.method)
    common.console.print(
        f"{len(cells)} cells in {args.out}, {len(cells) - len(to_run)} of them finished before",
        soft_wrap=True,
    )
    prefix = [sys.executable, "-m", "qs5", "sweep", *_without_only(argv), "--only"]
    with _lines(args.out, cells) as listener:
        run_cells(
            cells,
            args.out,
            command=lambda cell: [*prefix, cell.name],
            jobs=args.jobs,
            retry=args.retry,
            listener=listener,
        )


def _without_only(argv: list[str]) -> list[str]:
    return [word for word in argv if word not in ("--retry", "--list")]


class _lines:
    """One line a running cell on a terminal, one line for good when it ends."""

    def __init__(self, folder: Path, cells: Sequence[Cell]) -> None:
        self._folder = folder
        self._left = sum(state_of(folder / c.name) != "done" for c in cells)
        self._bar = Progress(
            TextColumn("  {task.description}"), console=common.console, transient=True, refresh_per_second=2,
            disable=not common.console.is_terminal,
        )  # fmt: skip
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Listener:
        self._bar.__enter__()
        return Listener(progress=self._progress, finished=self._finished)

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)  # type: ignore[arg-type]

    def _progress(self, running: Sequence[CellProgress]) -> None:
        for each in running:
            name = each.cell.name
            if name not in self._rows:
                self._rows[name] = self._bar.add_task("", total=None)
            self._bar.update(self._rows[name], description=_progress_text(each))

    def _finished(self, cell: Cell, seconds: float) -> None:
        if (row := self._rows.pop(cell.name, None)) is not None:
            self._bar.remove_task(row)
        self._left -= 1
        folder = self._folder / cell.name
        failed, result = failure_of(folder), result_of(folder)
        text = f"failed: {failed['reason']} ({folder / 'log.txt'})" if failed else ""
        if result is not None:
            text = _result_text(result)
        common.console.print(
            f"{cell.name}: {text}, {seconds:.0f} s, {self._left} to go", soft_wrap=True, markup=False
        )


def _result_text(result: dict[str, Any]) -> str:
    value = result["value"]
    return "training diverged" if math.isnan(value) else f"test {result['metric']} {value:.4f}"


def _progress_text(p: CellProgress) -> str:
    epochs = "" if p.metric is None else f"epoch {p.epoch}, validation {p.metric:.4f}, "
    return f"{p.cell.name}: {epochs}{p.seconds:.0f} s"


def _list(cells: Sequence[Cell], args: argparse.Namespace) -> None:
    for cell in cells:
        common.console.print(f"{cell.name}  {state_of(args.out / cell.name)}", soft_wrap=True)


def _conclude(cells: Sequence[Cell], argv: list[str], args: argparse.Namespace) -> int:
    """One table on the screen and in table.md, the records in records.jsonl; 1 if a cell failed."""
    header, rows = header_of(cells), rows_of(cells, args.out)
    title = f"{args.start}: test metric of the cells in {args.out}"
    common.console.print(terminal(title, header, rows))
    command = shlex.join(["qs5", "sweep", *argv])
    write_beside(args.out / "table.md", f"# {title}\n\n`{command}`\n\n{markdown(header, rows)}".encode())
    write_records(cells, args.out, args.out / "records.jsonl")
    failed = sum(state_of(args.out / c.name) == "failed" for c in cells)
    if failed:
        common.console.print(
            f"{failed} failed; --retry runs them again, log.txt in each folder says why", soft_wrap=True
        )
    return int(failed > 0)
