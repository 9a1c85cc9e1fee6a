"""`python -m benchmarks.scaling`: time and memory of a training step over length, width, layers, batch, threads.

Every point is a process of its own, so that its peak of resident memory is its own. Points recorded before are kept:
the command goes on where it was stopped, and --again starts anew. --memory-only times nothing, for a machine that is
not idle; the same command without it then times what is there without a time. Writes results/bench/scaling.{md,json}
and, with the extra `figures`, scaling.{png,svg,csv}.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.scaling import points
from benchmarks.scaling.points import Point

RESULTS = Path(__file__).resolve().parents[2] / "results" / "bench"
Records = dict[str, dict[str, Any]]


def main() -> None:
    """Measure what is missing, then write the page."""
    args = _parser().parse_args()
    budget = 0.0 if args.memory_only else args.budget
    if args.point:
        print(json.dumps(points.measure_here(Point(**json.loads(args.point)), budget=budget)))
        return
    records = {} if args.again else load(args.out)
    chosen = points.all_points()[: args.first]
    fill(records, chosen, out=args.out, budget=budget)
    from benchmarks.scaling import page

    print(page.write(records, args.out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--budget", type=float, default=1.5, help="seconds of timed steps a point (at least 3 steps)"
    )
    parser.add_argument("--memory-only", action="store_true", help="time nothing")
    parser.add_argument("--again", action="store_true", help="forget the points recorded before")
    parser.add_argument("--first", type=int, default=None, metavar="N", help="the first N points alone")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    return parser


def load(out: Path) -> Records:
    """Points recorded before, by key."""
    path = out / "scaling.json"
    return json.loads(path.read_text())["points"] if path.is_file() else {}


def fill(records: Records, chosen: list[Point], *, out: Path, budget: float) -> None:
    """Measure every point that has no record, or no time where one is wanted; saved after each."""
    for i, point in enumerate(chosen):
        if not _lacks(records.get(point.key), timed=budget > 0):
            continue
        begin = time.monotonic()
        records[point.key] = measured(point, budget=budget)
        save(records, out)
        took = time.monotonic() - begin
        print(f"{i + 1}/{len(chosen)} {point.key} {records[point.key]} ({took:.0f} s)", flush=True)


def _lacks(record: dict[str, Any] | None, *, timed: bool) -> bool:
    return record is None or (timed and record.get("seconds") is None)


def measured(point: Point, *, budget: float) -> dict[str, Any]:
    """The record of a point; one that failed says why and stops nobody else."""
    from qs5.training import record

    try:
        return {**points.run(point, budget=budget), "commit": record.commit()}
    except Exception as error:
        return {"error": str(error), "commit": record.commit()}


def save(records: Records, out: Path) -> None:
    """All points with the machine they were measured on."""
    from qs5.files import write_beside
    from qs5.training import record

    results = {"machine": record.machine(), "command": "python -m benchmarks.scaling", "points": records}
    write_beside(out / "scaling.json", (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
