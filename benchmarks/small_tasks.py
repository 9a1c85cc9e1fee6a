"""Text, ListOps and grey CIFAR at the scale of two cores (`recipes/*-small.toml`): collect the records, show the cards.

    qs5 sweep text-small --method fp ptq --grid spec=W8A8,W4A8 seed=0,1,2 -o runs/text
    python -m benchmarks.small_tasks gather runs/text       # into results/text.jsonl, each finished cell once
    python -m benchmarks.small_tasks show                   # results/small_tasks.md

A card says what the data is and how the float models were made, then what became of them: a row a configuration, a
column a method. Every number is a record.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qs5.errors import UserError
from qs5.files import append_jsonl, read_jsonl, write_beside
from qs5.quantization.spec import PAPER_TABLE
from qs5.reports.paper_rows import TITLES, printed
from qs5.reports.results import Group, Result, grouped, read_results, seeds_of
from qs5.reports.tables import markdown

RESULTS = Path(__file__).resolve().parents[1] / "results"
TASKS = {
    "text": "IMDB reviews by characters, the data set's own 25,000 training and 25,000 test reviews; a tenth of the "
    "training reviews is held out for validation.",
    "listops": "Expressions made by `qs5 data make listops`, not the benchmark's own. The float model of seed 0 was "
    "trained twice, 50.65 and then 50.55: PTQ and QAFT of `W8A8` start from the first, the other QAFT from the second.",
    "scifar": "CIFAR-10 in grey, pixel by pixel, from JPEG files: not the benchmark's own data. The float model of "
    "seed 0 was trained by `qs5 train scifar-small --out runs/scifar-small` at commit 59b56d214ea9.",
}
"""What a card says of the data, by the paper's name of the task."""
FILES = {task: task for task in TASKS} | {"smnist": "smnist-small"}
"""Where records go, by task. Half-size sMNIST has no card here: it stands in the paper's tables 2 to 5."""
FLOORS = {"text": 0.75, "listops": 0.37, "scifar": 0.60}
"""Float accuracy below which a task says nothing about quantization at this scale: fixed before anything was run."""
DEFAULT = "W8A8Abar16"
ABOUT = (
    "Test accuracy in % on all test examples; the epoch was selected on validation data. Several seeds: mean (lowest "
    "to highest). The paper's way: dynamic scales inside the parallel scan, AQT's range rule, qGELU and hard sigmoid. "
    "Deployable: static power-of-two scales, sequential, 16-bit state, what the integer model computes but for the "
    "rounding of its multipliers and tables; PTQ with reconstructed weights. The paper's own numbers are of its "
    "full-size models. Records: text.jsonl, listops.jsonl, scifar.jsonl; collected by "
    "`python -m benchmarks.small_tasks gather`."
)
WIDTH = 64
"""H of the small models; the paper's are wider."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, then collect or show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("gather", "show"))
    parser.add_argument("folders", nargs="*", type=Path, help="gather: folders of sweeps or runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if (args.what == "gather") != bool(args.folders):
        parser.error(
            f"expected `gather FOLDER...` or `show`, got {args.what} with {len(args.folders)} folders"
        )
    try:
        if args.what == "gather":
            for folder in args.folders:
                print(f"{folder}: {gather(folder, args.results)} new records")
        write_beside(args.results / "small_tasks.md", page(read_results(args.results)).encode())
    except UserError as error:
        parser.error(str(error))
    print(args.results / "small_tasks.md")


def gather(folder: Path, results: Path) -> int:
    """Add the test records of a sweep to the results; how many were new.

    Raises UserError where there is none, or where one belongs to none of the tasks.
    """
    source = folder / "records.jsonl"
    rows = [r for r in read_jsonl(source) if r["split"] == "test"] if source.exists() else []
    if not rows:
        raise UserError(f"{source}: expected records of finished cells, found none: run `qs5 sweep` there")
    added = 0
    for row in rows:
        task = row["task"].split("-")[0]
        if task not in FILES:
            raise UserError(f"{source}: expected tasks {', '.join(FILES)}, got {row['task']}")
        path = results / f"{FILES[task]}.jsonl"
        known = map(_text, read_jsonl(path) if path.exists() else [])
        if _text(row) not in known:
            append_jsonl(path, row)
            added += 1
    return added


def _text(row: dict[str, Any]) -> str:
    """One that equals itself, which the NaN of a diverged run does not."""
    return json.dumps(row, sort_keys=True)


# ---- the page ----


def page(results: Sequence[Result]) -> str:
    """A card for every task that has records."""
    parts = ["# Text, ListOps and grey CIFAR at the scale of two cores", ABOUT]
    for task in TASKS:
        own = [r for r in results if r.stands_for == task and r.model.get("H") == WIDTH]
        parts += card(task, own) if own else [f"## {TITLES[task]}", "Not run yet."]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def card(task: str, results: Sequence[Result]) -> list[str]:
    """One task."""
    floats = grouped([r for r in results if r.spec == "float"])
    best = max((g.mean for g in floats), default=0.0)
    verdict = f"Float accuracy is above the {100 * FLOORS[task]:.0f} % that were asked for beforehand."
    if best < FLOORS[task]:
        verdict = f"Float accuracy is below {100 * FLOORS[task]:.0f} %: **not testable at this scale**."
    commands = dict.fromkeys(r.call for r in results)
    return [
        f"## {TITLES[task]}",
        f"{TASKS[task]} {verdict}",
        "\n".join(_floats(g) for g in floats),
        table(task, results),
        "\n".join(f"- `{c}`" for c in commands),
        f"Commits: {', '.join(dict.fromkeys(r.commit for r in results))}.",
    ]


RECONSTRUCTED = (("rounding", "reconstructed"),)
COLUMNS: dict[str, Callable[[Result], bool]] = {
    "PTQ, the paper's way": lambda r: r.method == "ptq" and r.way == "paper" and _replaced(r),
    "PTQ, deployable": lambda r: r.method == "ptq" and _plain(r),
    "PTQ, deployable, `form=polar`": lambda r: r.method == "ptq" and r.changes == (("form", "polar"),),
    "QAFT, deployable": lambda r: r.method == "qaft" and _plain(r),
    "QAFT, deployable, from reconstructed weights": lambda r: (
        r.method == "qaft" and r.changes == RECONSTRUCTED
    ),
    "QAT, deployable": lambda r: r.method == "qat" and _plain(r),
}


def _plain(r: Result) -> bool:
    return r.way == "deployable" and not r.changes


def _replaced(r: Result) -> bool:
    return (r.model.get("gelu"), r.model.get("gate")) == ("qgelu", "hard_sigmoid")


def table(task: str, results: Sequence[Result]) -> str:
    """A row a configuration: the paper's PTQ and QAT, and ours. Columns that nothing was run for are left out."""
    columns = {name: [r for r in results if fits(r)] for name, fits in COLUMNS.items()}
    columns = {name: found for name, found in columns.items() if found}
    header = ["configuration", "PTQ, paper", "QAT, paper", *columns]
    rows = []
    for spec in (DEFAULT, *PAPER_TABLE):
        paper = [_paper(task, method, spec) for method in ("PTQ", "QAT")]
        rows.append(
            [spec, *paper, *(_cell([r for r in found if r.spec == spec]) for found in columns.values())]
        )
    return markdown(header, rows)


def _paper(task: str, method: str, spec: str) -> str:
    return printed("table2", f"{method} {spec}", task)


def _cell(results: Sequence[Result]) -> str:
    return "<br>".join(value(g) for g in grouped(results)) or "-"


def value(group: Group) -> str:
    """`79.69 (78.90 to 80.34)`, or for one seed `80.34 (seed 0)`."""
    one = len(group.results) == 1
    return f"{group.percent} ({seeds_of(group.results)})" if one else group.percent


def _floats(group: Group) -> str:
    each = ", ".join(f"{100 * r.value:.2f} (seed {r.seed})" for r in group.results)
    return f"- Float, {group.results[0].sizes}: mean **{100 * group.mean:.2f}**: {each}."


if __name__ == "__main__":
    main()
