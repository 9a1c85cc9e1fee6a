"""`qs5 search RUN --budget bytes=40k`: the bits of every site, chosen to lose least within a budget."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from qs5.cli import common
from qs5.cli.lower import labels_of
from qs5.errors import UserError
from qs5.files import write_beside
from qs5.integer import save
from qs5.quantization.spec_file import spec_text
from qs5.reports.figures import pareto
from qs5.reports.tables import percent, terminal
from qs5.search.budget import EXPECTED, Budget, parse_budget
from qs5.search.search import CALIBRATION, VALIDATION, Candidate, Search, on_front

HEADER = ("spec", "bytes", "M bit operations", "divergence", "metric", "on the front")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Choose the bits of every site of a float run within a budget, after post-training quantization.

    The folder gets a spec and an integer model for each budget, all points as CSV and JSON, and a figure. The same
    command again goes on where it was; other budgets in the same folder use what is measured already.
    """

    budget: str
    """bytes=40k (the integer model's file), ops=2.5M (bit operations a step), or drop=0.5 (points of accuracy, in the
    fewest bytes)."""
    out: Path | None = None
    """Folder of the search (default: runs/RUN-search)."""
    data_dir: str | None = None
    """Where the data sets are (else $QS5_DATA)."""
    draw: int = 0
    """Which draw of training sequences calibrates."""
    calibration: int = CALIBRATION
    """Training sequences that sensitivity and refinement are measured on."""
    validation: int = VALIDATION
    """Validation sequences that candidates are judged on."""


def run(argv: list[str]) -> int:
    """Parse, search, write, print."""
    argv = ["--out" if word == "-o" else word for word in argv]
    usage = "qs5 search RUN --budget bytes=40k [options]"
    name, rest = common.take_positional(argv, usage, "a float run or zoo model")
    if not any(word.split("=")[0] == "--budget" for word in rest) and not {"-h", "--help"} & set(rest):
        raise UserError(f"expected {EXPECTED}; usage: {usage}")
    args = tyro.cli(Arguments, args=rest, prog=f"qs5 search {name}")
    budget = parse_budget(args.budget)
    search = open_search(name, args)
    best = search.run(budget)
    paths = _write(search, budget, best)
    kind = budget.cost
    front = on_front(search.candidates, kind)
    rows = [_row(c, search, c in front) for c in sorted(search.candidates, key=lambda c: c.cost(kind))]
    common.console.print(terminal(f"{name}: every candidate so far", HEADER, rows))
    common.console.print(
        f"{args.budget}: {best.name}, {best.bytes:,} bytes, {_metric(search, best.metric)} (float "
        f"{_metric(search, best.float_metric)}) on {best.n} validation sequences\n"
        f"bits: {search.spec(best.choice).widths(search.model.config)}\n"
        f"{', '.join(map(str, paths))}\n"
        f"use it: qs5 quantize {name} --spec {paths[0]}",
        soft_wrap=True,
        markup=False,
    )
    return 0


def open_search(name: str, args: Arguments) -> Search:
    """The search of a run or zoo model, in its folder.

    Raises UserError where there is no such run, it is quantized, its data are not there, it cannot be lowered, or the
    folder belongs to another search.
    """
    model, info = common.open_run(name)
    if info.spec is not None:
        raise UserError(f"{name}: expected a float run, got one quantized to {info.spec['name']}")
    task = common.load_task(info.recipe, args.data_dir)
    return Search(
        model=model,
        task=task,
        labels=labels_of(dataclasses.replace(info, method="ptq", parent=name), task, run=name),
        name=Path(name).name,
        folder=args.out or Path("runs") / f"{Path(name).name}-search",
        draw=args.draw,
        calibration_examples=args.calibration,
        validation_examples=args.validation,
        note=lambda line: common.console.print(line, soft_wrap=True, markup=False, highlight=False),
    )


def _row(c: Candidate, search: Search, front: bool) -> Sequence[str]:
    return (
        c.name,
        f"{c.bytes:,}",
        f"{c.ops / 1e6:.2f}",
        f"{c.divergence:.5f}",
        _metric(search, c.metric),
        "yes" if front else "-",
    )


def _metric(search: Search, value: float) -> str:
    return f"{percent(value)} %" if search.task.metric == "accuracy" else f"{value:.5g}"


# -- files -------------------------------------------------------------------------------------------------------


def _write(search: Search, budget: Budget, best: Candidate) -> list[Path]:
    """Spec and integer model of the winner, all points, and the figure where matplotlib is there."""
    folder = search.folder
    model = search.lowered(best.choice)
    spec_path, model_path = (folder / f"{budget.name}.{kind}" for kind in ("toml", "qs5"))
    save(model_path, model)
    spec = search.spec(best.choice)
    widths = spec.widths(search.model.config)
    comment = (
        f"found by qs5 search for {search.name}, {budget.kind} {budget.value:g}\n{widths}\n{best.bytes} bytes, "
        f"{best.ops} bit operations a step; validation {search.task.metric} {best.metric:.5g} (float "
        f"{best.float_metric:.5g}), {best.n} sequences"
    )
    write_beside(spec_path, spec_text(spec, comment=comment).encode())
    points = _points(search, budget, best)
    fields = pareto.HEADER
    table = [dict(zip(fields, row, strict=True)) for row in pareto.rows_of(points)]
    write_beside(folder / "points.json", (json.dumps(table, indent=1) + "\n").encode())
    return [spec_path, model_path, folder / "points.json", *_figure(search, budget, points)]


def _points(search: Search, budget: Budget, best: Candidate) -> list[pareto.Point]:
    kind = budget.cost
    front = {c.text for c in on_front(search.candidates, kind)}
    return [
        pareto.Point(
            name=c.name,
            series="candidates",
            bytes=c.bytes,
            ops=c.ops,
            divergence=c.divergence,
            metric=c.metric,
            front=c.text in front,
            label=budget.name if c.text == best.text else "",
            spec=c.text,
        )
        for c in sorted(search.candidates, key=lambda c: c.cost(kind))
    ]


def _figure(search: Search, budget: Budget, points: list[pareto.Point]) -> list[Path]:
    from qs5.reports.figures import save_figure

    kind = budget.cost
    title = f"{search.name}: bits chosen after training, {search.candidates[0].n} validation sequences"
    level = search.candidates[0].float_metric
    try:
        figure = pareto.draw(points, cost=kind, metric=search.task.metric, level=level, title=title)
    except UserError as error:  # no matplotlib: the numbers are there all the same
        search.note(f"no figure: {error}")
        return []
    return list(save_figure(search.folder, f"pareto-{kind}", figure, pareto.HEADER, pareto.rows_of(points)))
