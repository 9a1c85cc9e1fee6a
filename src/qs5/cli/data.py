"""`qs5 data check TASK` and `qs5 data make KIND`: the files of data sets."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from qs5.cli import common
from qs5.errors import UserError
from qs5.reports.tables import terminal
from qs5.tasks import Split, checks
from qs5.tasks.listops_make import ListOpsOptions
from qs5.tasks.pathfinder_make import PathfinderOptions

USAGE = "qs5 data check TASK [options], or qs5 data make KIND --out PATH [options]"


@dataclass(frozen=True, kw_only=True)
class CheckArguments:
    """Read all files of a task, test what can be tested, and compare with what is published."""

    data_dir: str | None = None
    """Where the data sets are (else $QS5_DATA)."""
    data: tuple[str, ...] = ()
    """Options of the data set's loader as key=value."""


@dataclass(frozen=True, kw_only=True)
class MakeListOps(ListOpsOptions):
    """Write random ListOps expressions in the files of the Long Range Arena, by default with its parameters."""

    out: Path
    """The folder; give it as --data-dir to train on them."""


@dataclass(frozen=True, kw_only=True)
class MakePathfinder(PathfinderOptions):
    """Write images in the manner of Pathfinder: two long dashed paths, short ones, and two ends that are marked.

    They are ours, not the Long Range Arena's, and results on them are not to be compared with published ones.
    """

    out: Path
    """The folder; give it as --data-dir to train on them."""


@dataclass(frozen=True, kw_only=True)
class MakeMackeyGlass:
    """Write the series of `mackey_glass` as an .npz file of x and y of every split, as `custom` reads it."""

    out: Path
    """The .npz file."""
    tau: float = 17.0
    form: Literal["delayed", "ahead"] = "delayed"
    """delayed: the paper's ten channels. ahead: one channel, without copies of the inputs in the targets."""
    seed: int = 0


def run(argv: list[str]) -> int:
    """Dispatch to check or make."""
    verb, rest = common.take_positional(argv, USAGE, "check or make")
    if verb == "check":
        return _check(rest)
    if verb == "make":
        return _make(rest)
    raise UserError(f"expected check or make, got {verb!r}; usage: {USAGE}")


def _check(argv: list[str]) -> int:
    name, rest = common.take_positional(argv, "qs5 data check TASK [options]", "a task")
    args = tyro.cli(CheckArguments, args=rest, prog=f"qs5 data check {name}")
    task, rows = checks.check(name, data_dir=args.data_dir, **common.key_values(args.data))
    lines = [(row.what, row.got, row.expected or "-", "" if row.right else "differs") for row in rows]
    header = ("what", "found", "published", "")
    common.console.print(terminal(f"{task.name} ({task.selection})", header, lines))
    if wrong := [row.what for row in rows if not row.right]:
        raise UserError(
            f"{task.name}: expected what is published of the data set, got something else for {', '.join(wrong)}; "
            "a part is missing, or it is another data set (see the table)"
        )
    return 0


def _make(argv: list[str]) -> int:
    kind, rest = common.take_positional(argv, "qs5 data make KIND --out PATH", f"one of {', '.join(MAKERS)}")
    if kind not in MAKERS:
        raise UserError(f"expected one of {', '.join(MAKERS)}, got {kind!r}")
    arguments, maker = MAKERS[kind]
    args = tyro.cli(arguments, args=rest, prog=f"qs5 data make {kind}")
    with common.counting(f"making {kind}") as progress:
        paths = maker(args, progress)
    for path in paths:
        common.console.print(str(path), soft_wrap=True)
    return 0


Progress = Callable[[int, int], None]


def _listops(args: MakeListOps, progress: Progress) -> list[Path]:
    from qs5.tasks.listops_make import make

    fields = {f.name: getattr(args, f.name) for f in dataclasses.fields(ListOpsOptions)}
    return list(make(args.out, ListOpsOptions(**fields), progress=progress).values())


def _pathfinder(args: MakePathfinder, progress: Progress) -> list[Path]:
    from qs5.tasks.pathfinder_make import make

    fields = {f.name: getattr(args, f.name) for f in dataclasses.fields(PathfinderOptions)}
    return [make(args.out, PathfinderOptions(**fields), progress=progress)]


def _mackey_glass(args: MakeMackeyGlass, progress: Progress) -> list[Path]:
    import io

    import numpy as np

    from qs5.files import write_beside
    from qs5.tasks.mackey_glass import load_mackey_glass

    task = load_mackey_glass(tau=args.tau, form=args.form, seed=args.seed)
    arrays = {f"{name}_{split}": array for split, part in task.splits.items() for name, array in _xy(part)}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_beside(args.out, content.getvalue())
    progress(1, 1)
    return [args.out]


def _xy(split: Split) -> list[tuple[str, Any]]:
    return [("x", split.x), ("y", split.y)]


MAKERS: dict[str, tuple[type, Callable[[Any, Progress], list[Path]]]] = {
    "listops": (MakeListOps, _listops),
    "pathfinder": (MakePathfinder, _pathfinder),
    "mackey_glass": (MakeMackeyGlass, _mackey_glass),
}
