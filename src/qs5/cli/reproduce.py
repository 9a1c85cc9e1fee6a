"""`qs5 reproduce table1|...|fig4`: the tables and figures of the paper from recorded runs, its numbers beside ours."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from qs5 import zoo
from qs5.errors import UserError
from qs5.files import write_beside
from qs5.reports.paper_rows import TABLES, load_paper
from qs5.reports.paper_tables import Sources, render
from qs5.reports.results import Result, read_results

FIGURES = ("fig1", "fig2", "fig3", "fig4")
SAMPLES = "mackey_glass_samples.csv"


def run(argv: list[str]) -> int:
    """Parse, read records, print or write."""
    args = _parser().parse_args(argv)
    if args.what in FIGURES:
        return _figure(args)
    if not any(args.results.rglob("*.jsonl")):
        raise UserError(
            f"{args.what}: expected a folder of records (.jsonl files), found none in {args.results}; run this in the "
            "folder of the project, or give --results FOLDER"
        )
    text = render(args.what, _sources(args.results))
    if args.out is None:
        print(text)
    else:
        write_beside(args.out, text.encode())
        print(args.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qs5 reproduce",
        description="a table or figure of the paper, from recorded runs; what was not run says which command runs it",
    )
    parser.add_argument("what", choices=(*TABLES, *FIGURES))
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="the folder of records (.jsonl)"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        help="tables: a .md file (default: print); figures: a folder (default: figures)",
    )
    parser.add_argument("--run", default="smnist-float", help="fig1: the run or zoo model that is drawn")
    return parser


def _sources(folder: Path) -> Sources:
    from qs5.quantization.spec import PRESETS, spec_of
    from qs5.training.recipe import recipe_names

    widths = {name: spec_of(name).widths() for name in PRESETS}
    return Sources(_results(folder), widths, recipe_names())


def _results(folder: Path) -> list[Result]:
    runs = {name: json.loads((zoo.FOLDER / name / "run.json").read_text()) for name in zoo.names()}
    return read_results(folder, runs=runs)


def _figure(args: argparse.Namespace) -> int:
    draw: dict[str, Callable[[argparse.Namespace, Path], tuple[Path, ...]]] = {
        "fig1": _architecture,
        "fig2": _errors,
        "fig3": _qgelu,
        "fig4": _samples,
    }
    for path in draw[args.what](args, args.out or Path("figures")):
        print(path)
    return 0


def _architecture(args: argparse.Namespace, folder: Path) -> tuple[Path, ...]:
    from qs5.cli.common import find_run
    from qs5.cli.figures import nodes_of
    from qs5.reports.figures import architecture, save_figure
    from qs5.training.run import read_run

    config = read_run(find_run(args.run)).recipe.model
    nodes = nodes_of(config)
    title = f"{args.run}: H={config.H}, P={config.P} ({config.modes} modes); axes L time, B batch"
    figure = architecture.draw(nodes, layers=config.layers, title=title)
    return save_figure(folder, "fig1", figure, architecture.HEADER, architecture.rows_of(nodes))


def _qgelu(args: argparse.Namespace, folder: Path) -> tuple[Path, ...]:
    from qs5.cli.figures import qgelu_curves
    from qs5.reports.figures import qgelu, save_figure

    x, gelu, exact, curves = qgelu_curves()
    figure = qgelu.draw(x, gelu, exact, curves)
    return save_figure(folder, "fig3", figure, qgelu.header_of(curves), qgelu.rows_of(x, gelu, exact, curves))


def _errors(args: argparse.Namespace, folder: Path) -> tuple[Path, ...]:
    """Figure 2, and fig2_ahead: the same without the leak, where such runs are recorded."""
    from qs5.reports import mackey_glass as study
    from qs5.reports.figures import mackey_glass, save_figure

    results = _results(args.results)
    if study.schedule_of(results) is None:
        raise UserError(
            f"fig2: no Mackey-Glass runs (with panel, bits and tau) in {args.results}; run {study.COMMAND} first"
        )
    table, paths = load_paper()["figure2"], ()
    taus = tuple(float(tau) for tau in table["tau"])
    paper = {
        (curve, tau): float(v)
        for curve, values in table["curves"].items()
        for tau, v in zip(taus, values, strict=True)
    }
    for name, task, theirs, more in (
        ("fig2", study.DELAYED, paper, ""),
        ("fig2_ahead", study.AHEAD, {}, " --form ahead"),
    ):
        points = study.points_of(results, task=task)
        if not points:
            continue
        planned = {(*curve, tau) for curve in study.CURVES for tau in taus}
        missing = len(planned - {(p.panel, p.bits, p.tau) for p in points})
        title = f"{missing} of {len(planned)} points not run: see {name}.csv" if missing else ""
        rows = mackey_glass.rows_of(points, theirs, taus=taus, more=more)
        figure = mackey_glass.draw_errors(points, theirs, title=title)
        paths += save_figure(folder, name, figure, mackey_glass.HEADER, rows)
    return paths


def _samples(args: argparse.Namespace, folder: Path) -> tuple[Path, ...]:
    from qs5.reports.figures import mackey_glass, save_figure

    path = args.results / SAMPLES
    if not path.exists():
        raise UserError(
            f"fig4: expected {path} (columns tau, step, channels), got none; run "
            "python -m benchmarks.mackey_glass samples first"
        )
    series = mackey_glass.read_samples(path)
    header = ("tau", "step", *(f"channel_{i}" for i in range(next(iter(series.values())).shape[1])))
    rows = (
        (f"{tau:g}", k, *map(repr, values))
        for tau, s in series.items()
        for k, values in enumerate(s.tolist())
    )
    return save_figure(folder, "fig4", mackey_glass.draw_samples(series), header, rows)
