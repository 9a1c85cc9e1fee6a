"""sMNIST: bits chosen by `qs5 search` against the same bits everywhere, at equal bytes.

    python -m benchmarks.search run --data-dir DATA        # uniform ones, then a search a budget; goes on where it was
    python -m benchmarks.search reconstruct --data-dir DATA    # the same bits, weights reconstructed
    python -m benchmarks.search show

Everything is post-training quantization of the zoo's smnist-float with the same 512 calibration images, judged in the
integer engine. Searches look at training and validation images alone. Every model in the table is judged once on the
10,000 test images, after its bits were fixed. Searches round every weight to its nearest code; `reconstruct` takes the
bits of recorded models, found or uniform, and reconstructs the weights for them. Records: results/search.jsonl; table
and figure: results/search.md, .png, .svg, .csv.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qs5.cli.malloc import tune_malloc

if TYPE_CHECKING:
    from qs5.integer.model import IntegerModel
    from qs5.reports.figures.pareto import Point
    from qs5.search.search import Search

RESULTS = Path(__file__).resolve().parents[1] / "results"
RECORDS = RESULTS / "search.jsonl"
PARENT = "smnist-float"
FOLDER = Path("runs") / "smnist-search"
W3 = "b=3,c=3,d=3,dense=3"
UNIFORM = {
    **{f"{name} polar": f"{name},form=polar" for name in (
        "W8A8", "W4A8SSM8", "W4A8Abar8", "W4A8", "W2A8SSM8", "W2A8Abar8", "W2A8",
    )},
    "W3A8Abar8 polar": f"W4A8Abar8,{W3},form=polar",
    "W3A8 polar": f"W4A8,a=3,{W3},form=polar",
    **{f"{name} linear": name for name in (
        "W8A8Abar16", "W8A8", "W4A8SSM8", "W4A8Abar8", "W4A8", "W2A8SSM8", "W2A8Abar8",
    )},
    "W4A8Abar16 linear": "W4A8,a=16",
    "W3A8Abar16 linear": f"W4A8,a=16,{W3}",
    "W2A8Abar16 linear": "W2A8,a=16",
}  # fmt: skip
"""The same widths in all layers: the presets, and such as fill the gaps."""
RECONSTRUCTED = (
    "bytes=53300", "W2A8Abar8 polar", "W3A8 polar", "W3A8Abar8 polar", "bytes=87500", "W4A8 polar", "W4A8Abar8 polar",
)  # fmt: skip
"""Names of recorded models whose bits are also tried with reconstructed weights."""
BUDGETS = ("40k", "53300", "70300", "87500", "127400", "155800")
"""Bytes: a little less than the uniform models of 2, 3, 4 bits, of W2A8SSM8 and W8A8; and 40k, which none reaches."""


def main() -> None:
    """Parse, then run what is missing or show the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "reconstruct", "show"))
    parser.add_argument("--budgets", nargs="*", default=BUDGETS, help="bytes, as qs5 search takes them")
    parser.add_argument("--uniform", nargs="*", default=tuple(UNIFORM), help="names of the table")
    parser.add_argument("--data-dir", help="where MNIST's training files are, else $QS5_DATA")
    args = parser.parse_args()
    tune_malloc()
    if args.what == "run":
        _run(args)
    elif args.what == "reconstruct":
        _reconstruct(args)
    _show()


def _run(args: argparse.Namespace) -> None:
    from qs5.cli.search import Arguments, open_search
    from qs5.search.budget import parse_budget

    search = open_search(PARENT, Arguments(budget="", out=FOLDER, data_dir=args.data_dir))
    for name in args.uniform:
        if not _done(name):
            _append(search, name, "uniform", _uniform(search, UNIFORM[name]), 0.0)
    for text in args.budgets:
        name = f"bytes={text}"
        if not _done(name):
            started = time.monotonic()
            best = search.run(parse_budget(name))
            _append(
                search, name, "searched", search.lowered(best.choice), time.monotonic() - started, best.text
            )


def _done(name: str, rounding: str = "nearest") -> bool:
    from qs5.training import record

    return any((r["extra"]["name"], _rounding(r)) == (name, rounding) for r in record.read(RECORDS))


def _rounding(r: dict[str, Any]) -> str:
    """Records from before there was a choice are rounded to nearest."""
    return r["extra"].get("rounding", "nearest")


def _reconstruct(args: argparse.Namespace) -> None:
    from qs5.cli.search import Arguments, open_search
    from qs5.training import record

    search = open_search(PARENT, Arguments(budget="", out=FOLDER, data_dir=args.data_dir))
    found = {r["extra"]["name"]: r["extra"] for r in record.read(RECORDS) if _rounding(r) == "nearest"}
    for name in RECONSTRUCTED:
        if name in found and not _done(name, "reconstructed"):
            started = time.monotonic()
            text = found[name]["text"] if found[name]["series"] == "searched" else UNIFORM[name]
            model = _reconstructed(search, text)
            _append(
                search, name, found[name]["series"], model, time.monotonic() - started, text, "reconstructed"
            )


def _reconstructed(search: "Search", text: str) -> "IntegerModel":
    """As `qs5 quantize --spec TEXT,rounding=reconstructed` and `qs5 lower` do it."""
    from qs5.lowering.lower import lower
    from qs5.quantization.spec import spec_of
    from qs5.training import methods

    spec, workshop = spec_of(f"{text},rounding=reconstructed"), search.workshop
    model, plan = methods.fitted(workshop.model, search.task, spec)
    assert plan is not None
    return lower(model, spec=spec, plan=plan, preprocessing=workshop.preprocessing, labels=search.labels)


def _uniform(search: "Search", text: str) -> "IntegerModel":
    """Quantized and lowered as the command line does, with the search's calibration images."""
    from qs5.lowering.lower import lower
    from qs5.quantization.build import plan_of
    from qs5.quantization.spec import spec_of

    spec, workshop = spec_of(f"{text},rounding=nearest"), search.workshop
    model = workshop.prepared(spec.form)
    plan = plan_of(model, workshop.stats(spec.form), spec)
    return lower(model, spec=spec, plan=plan, preprocessing=workshop.preprocessing, labels=search.labels)


def _append(
    search: "Search", name: str, series: str, model: "IntegerModel", seconds: float, text: str = "",
    rounding: str = "nearest",
) -> None:  # fmt: skip
    """Judge on validation and, once, on test; write the record."""
    from qs5.integer.cost import bit_operations
    from qs5.integer.file import to_bytes
    from qs5.integer.whole import cross_entropy
    from qs5.search.measure import judge, measure
    from qs5.training import record

    task = search.task
    validation = measure(model, task, search.validation)
    judged = judge(model, task, task.test)
    result = record.RunRecord(
        task=task.name,
        data=task.identity,
        method="ptq",
        spec=model.description.spec,
        seed=0,
        split="test",
        metric=task.metric,
        value=judged.metric,
        loss=cross_entropy(judged.outputs, task.test.y),
        n=len(task.test),
        selection="validation" if series == "searched" else "none",
        seconds=seconds,
        extra={
            "name": name,
            "series": series,
            "rounding": rounding,
            "parent": PARENT,
            "text": text or model.description.spec,
            "widths": model.description.widths,
            "bytes": len(to_bytes(model)),
            "ops": bit_operations(model),
            "validation": validation.metric,
            "validation_divergence": validation.divergence,
            "validation_n": validation.n,
            "form": "linear" if "polar" not in model.description.widths else "polar",
        },
    )
    record.append(RECORDS, result)
    print(
        f"{name}: {result.extra['bytes']} bytes, test {100 * result.value:.2f} %, {seconds:.0f} s", flush=True
    )


def _show() -> None:
    from qs5.files import write_beside
    from qs5.reports.figures import pareto, save_figure
    from qs5.reports.tables import markdown
    from qs5.training import record

    records = sorted(record.read(RECORDS), key=lambda r: r["extra"]["bytes"])
    rows = [_row(r, records) for r in records]
    header = (
        "model", "weights", "bytes", "M bit operations", "validation %", "divergence", "test %",
        "searched, no larger: test %", "bits in the order of the layers",
    )  # fmt: skip
    text = (
        "# Bits by search against the same bits everywhere, sMNIST\n\n"
        f"PTQ of {PARENT} (99.49 % test) in the integer engine, calibration draw 0 of 512 images. Bytes of a whole "
        "file. Searched on training and 2,000 validation images (columns validation and divergence, nats from "
        "the float model's class probabilities); the 10,000 test images were judged once, afterwards. "
        "weights: rounded to nearest, as in the search, or reconstructed for the same bits. Made by "
        "`python -m benchmarks.search run`; records with commit and machine: search.jsonl.\n\n"
        + markdown(header, rows)
        + "\n![bytes against divergence and accuracy](search.png)\n"
    )
    write_beside(RESULTS / "search.md", text.encode())
    points = [_point(r, records) for r in records]
    figure = pareto.draw(
        points, cost="bytes", metric="accuracy", level=0.9949,
        title="smnist-float after PTQ: divergence on validation, accuracy on test images",
    )  # fmt: skip
    save_figure(RESULTS, "search", figure, pareto.HEADER, pareto.rows_of(points))
    print(text)


def _row(r: dict[str, Any], records: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    e = r["extra"]
    rival = _rival(r, records) if e["series"] == "uniform" else None
    return (
        f"**{e['name']}**" if e["series"] == "searched" else e["name"],
        _rounding(r),
        str(e["bytes"]),
        f"{e['ops'] / 1e6:.2f}",
        f"{100 * e['validation']:.2f}",
        f"{e['validation_divergence']:.5f}",
        f"{100 * r['value']:.2f}",
        "-" if rival is None else f"{100 * rival['value']:.2f} ({rival['extra']['name']})",
        e["widths"],
    )


def _rival(uniform: dict[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The searched model nearest to the float one on validation, of those that are no larger than a uniform one."""
    smaller = [
        r
        for r in records
        if r["extra"]["series"] == "searched"
        and _rounding(r) == _rounding(uniform)
        and r["extra"]["bytes"] <= uniform["extra"]["bytes"]
    ]
    return min(smaller, key=lambda r: r["extra"]["validation_divergence"], default=None)


def _point(r: dict[str, Any], records: Sequence[dict[str, Any]]) -> "Point":
    from qs5.reports.figures.pareto import Point

    e = r["extra"]
    series = "searched" if e["series"] == "searched" else f"uniform, {e['form']}"
    series += ", reconstructed" if _rounding(r) == "reconstructed" else ""
    beaten = any(
        (o["extra"]["series"], _rounding(o)) == (e["series"], _rounding(r))
        and o["extra"]["form"] == e["form"]
        and o["extra"]["bytes"] <= e["bytes"]
        and o["extra"]["validation_divergence"] < e["validation_divergence"]
        for o in records
    )
    return Point(
        name=e["name"],
        series=series,
        bytes=e["bytes"],
        ops=e["ops"],
        divergence=e["validation_divergence"],
        metric=r["value"],
        front=not beaten,
        label=e["name"] if e["series"] == "searched" else "",
        spec=e["text"],
    )


if __name__ == "__main__":
    main()
