"""`qs5 report RUNS... -o report.html`: one page about runs, from the files that lie beside them."""

import argparse
from pathlib import Path

from qs5 import zoo
from qs5.cli.integers import refuse_integer_model
from qs5.files import write_beside
from qs5.reports.page import render
from qs5.reports.runs import RunData, read_runs
from qs5.reports.weights import Precision


def run(argv: list[str]) -> int:
    """Parse, read, write the page. Loads no model."""
    args = _parser().parse_args(argv)
    runs = [run for name in args.runs for run in _read(name)]
    from qs5.training import record

    title = args.title or f"qs5: {', '.join(args.runs)}"
    page = render(runs, command=record.command_line(), commit=record.commit(), title=title)
    write_beside(args.out, page.encode())
    print(f"{args.out}: {len(runs)} run{'s' if len(runs) > 1 else ''}, {len(page.encode()) / 1000:.0f} kB")
    return 0


def _read(name: str) -> list[RunData]:
    """The runs that a word of the command line means. Raises UserError."""
    shipped = zoo.find(name)
    folder = shipped or Path(name)
    if not any(any(folder.glob(pattern)) for pattern in ("run.json", "*/run.json")):
        refuse_integer_model(name)
    return read_runs(folder, name, precision_of=_precision_of, shipped=shipped is not None)


def _precision_of(folder: Path) -> Precision:
    # Only now: with the sites of a network comes JAX, and a wrong name should be told at once.
    from qs5.cli.precision import precision_of
    from qs5.training.run import read_run

    return precision_of(read_run(folder))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qs5 report",
        description="one self-contained HTML page: curves, accuracy against bits, ranges, eigenvalues, sizes. Judge "
        "the runs first (qs5 evaluate RUN) and collect what is inside them (qs5 inspect RUN --save)",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs, folders of sweeps, zoo models")
    parser.add_argument("-o", "--out", type=Path, default=Path("report.html"))
    parser.add_argument("--title")
    return parser
