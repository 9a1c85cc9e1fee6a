"""Run cells in processes of their own, several at once.

What is finished is on disk, so a sweep that is killed, at any moment and however hard, goes on when it is started
again: finished cells are left alone, interrupted ones go on from their last epoch.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from qs5 import machine
from qs5.files import write_beside
from qs5.sweeps.cell import Cell, result_of, state_of
from qs5.training import record

POLL_SECONDS = 0.2
PARENT_VARIABLE = "QS5_SWEEP_PID"
"""Tells the process of a cell which sweep it belongs to."""
PROCESSORS_VARIABLE = "QS5_SWEEP_PROCESSORS"
"""Tells it which processors are its own: `0,1`. Empty: all."""


class Progress(NamedTuple):
    """A running cell: epochs finished and its last validation metric (None before the first), seconds so far."""

    cell: Cell
    epoch: int
    metric: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Listener:
    """What is told of a sweep. Started and finished once a cell; progress again and again for what runs."""

    started: Callable[[Cell], None] = lambda _: None
    progress: Callable[[Sequence[Progress]], None] = lambda _: None
    finished: Callable[[Cell, float], None] = lambda *_: None


class _Running(NamedTuple):
    cell: Cell
    process: subprocess.Popen[bytes]
    since: float
    share: tuple[int, ...]


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    *,
    command: Callable[[Cell], list[str]],
    jobs: int,
    retry: bool = False,
    listener: Listener = Listener(),
) -> None:
    """Run what is not finished, at most `jobs` at once; a cell waits for its float parent.

    The processors are shared out: all processes together then have as many threads as there are processors.
    command: how to run one cell, as a process. retry: failed cells are tried again. Cells whose parent failed
    are not run.
    """
    waiting = [c for c in cells if _is_open(folder / c.name, retry)]
    for cell in waiting:
        (folder / cell.name / "failed.json").unlink(missing_ok=True)
    running: list[_Running] = []
    shares = machine.shares(jobs)
    try:
        while waiting or running:
            for cell in _ready(waiting, folder)[: jobs - len(running)]:
                waiting.remove(cell)
                share = shares.pop(0)
                process = _start(command(cell), folder / cell.name, share)
                running.append(_Running(cell, process, time.monotonic(), share))
                listener.started(cell)
            if not running:
                return  # what is left waits for a parent that failed
            time.sleep(POLL_SECONDS)
            listener.progress([_progress(r, folder) for r in running])
            for done in [r for r in running if r.process.poll() is not None]:
                running.remove(done)
                shares.append(done.share)
                _note_failure(done, folder / done.cell.name)
                listener.finished(done.cell, time.monotonic() - done.since)
    finally:
        _stop(running)


def _is_open(folder: Path, retry: bool) -> bool:
    state = state_of(folder)
    return state == "waiting" or (retry and state == "failed")


def _ready(waiting: Sequence[Cell], folder: Path) -> list[Cell]:
    """Cells whose float parent, if it is a cell, is finished."""
    parents = [(c, c.parent) for c in waiting]
    return [c for c, p in parents if not isinstance(p, Cell) or state_of(folder / p.name) == "done"]


def _start(command: list[str], folder: Path, share: tuple[int, ...]) -> subprocess.Popen[bytes]:
    own = {PARENT_VARIABLE: str(os.getpid()), PROCESSORS_VARIABLE: ",".join(map(str, share))}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | own,
        )


def _progress(running: _Running, folder: Path) -> Progress:
    """Read off the records that a run leaves after every epoch."""
    records = record.read(folder / running.cell.name / "records.jsonl")
    epochs = [r for r in records if r["epoch"] is not None]
    last = epochs[-1] if epochs else {"epoch": 0, "value": None}
    return Progress(running.cell, last["epoch"], last["value"], time.monotonic() - running.since)


def _note_failure(done: _Running, folder: Path) -> None:
    """A process that ended without a result has failed, whatever its exit code says."""
    if result_of(folder) is not None:
        return
    table = {"exit_code": done.process.returncode, "reason": _reason(done.process.returncode, folder)}
    write_beside(folder / "failed.json", (json.dumps(table) + "\n").encode())


def _reason(code: int, folder: Path) -> str:
    """The last line of the log, or the signal that ended the process."""
    if code < 0:
        return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("qs5: ") if lines else f"exit code {code}"


def _stop(running: Sequence[_Running]) -> None:
    for each in running:
        each.process.terminate()
    for each in running:
        each.process.wait()


def join_sweep() -> None:
    """In the process of a cell, before JAX starts its threads: keep to the processors that the sweep gave it, and end
    when the sweep is gone, so that a killed one leaves nothing running."""
    if share := os.environ.get(PROCESSORS_VARIABLE):
        os.sched_setaffinity(0, map(int, share.split(",")))
    pid = os.environ.get(PARENT_VARIABLE)
    if pid is not None:
        threading.Thread(target=_end_after, args=(int(pid),), daemon=True).start()


def _end_after(pid: int) -> None:
    while os.getppid() == pid:
        time.sleep(POLL_SECONDS)
    os._exit(1)
