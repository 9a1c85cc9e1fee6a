"""Cells for tests, and a stand-in for the process that runs one."""

import dataclasses
import json
import sys
import time
from pathlib import Path

from tests.support import small_recipe

from qs5.sweeps.cell import Cell
from qs5.sweeps.grid import Start, cells_of, parse_axes
from qs5.training.record import RunRecord

START = Start(name="small", recipe=small_recipe())


def cells(*words: str, methods: tuple[str, ...] = ("ptq",)) -> tuple[Cell, ...]:
    """The cells of a grid over the small recipe."""
    return cells_of(START, methods, parse_axes(words))


def result_line(cell: Cell, value: float = 0.5) -> str:
    """What a finished cell has in its records."""
    record = RunRecord(
        task="small", data="", method=cell.method, spec=cell.spec or "float", seed=cell.seed, split="test",
        metric="accuracy", value=value, loss=1.0, n=8, selection="", seconds=0.0, command="c", commit="c",
        machine="m", time="t",
    )  # fmt: skip
    return json.dumps(dataclasses.asdict(record)) + "\n"


def finish(folder: Path, cell: Cell, value: float = 0.5) -> None:
    """Leave what a cell that ran would leave."""
    (folder / cell.name).mkdir(parents=True, exist_ok=True)
    (folder / cell.name / "records.jsonl").write_text(result_line(cell, value))


def worker(folder: Path, cell: Cell) -> list[str]:
    """A process that finishes the cell and notes in `ran` when it began and ended."""
    code = (
        "import sys, time\n"
        "folder, name, line = sys.argv[1:]\n"
        "begin = time.time(); time.sleep(0.2)\n"
        "open(f'{folder}/{name}/records.jsonl', 'w').write(line)\n"
        "open(f'{folder}/ran', 'a').write(f'{name} {begin} {time.time()}\\n')\n"
    )
    return [sys.executable, "-S", "-c", code, str(folder), cell.name, result_line(cell)]


def failing(text: str) -> list[str]:
    """A process that says something and fails."""
    return [sys.executable, "-S", "-c", f"import sys; print('more'); sys.exit({text!r})"]


def ran(folder: Path) -> dict[str, tuple[float, float]]:
    """Begin and end of every cell that ran; a cell that ran twice is an error."""
    path = folder / "ran"
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    assert len({name for name, *_ in rows}) == len(rows)
    return {name: (float(begin), float(end)) for name, begin, end in rows}


def wait_for(condition, seconds: float = 300.0) -> None:
    """Until `condition()` holds; fails after a while."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
