"""One self-contained HTML page about runs: no script, no picture, no font to load."""

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from qs5.reports import svg
from qs5.reports.results import measured
from qs5.reports.runs import RunData
from qs5.reports.svg import Series
from qs5.reports.weights import Weight, mean_bits, numbers, stored_bytes

REACH = 1.25
"""Histograms of inspection.json reach so far beyond the largest code."""
MANY_CLASSES = 26
"""Up to so many, a confusion matrix is drawn."""
WARN_SATURATED = 0.001
MEANING = {
    "a": "a: Lambda-bar",
    "b": "b: B-bar",
    "c": "c: C",
    "d": "d: D",
    "dense": "dense: encoder, gates, head",
}
"""The components of a spec in the words of the model."""


def render(runs: Sequence[RunData], *, command: str, commit: str, title: str) -> str:
    """The page. command, commit: of the report itself."""
    body = "".join(
        [*_overview(runs, title), *(part for run in runs for part in _run(run, alone=len(runs) == 1))]
    )
    css = Path(__file__).with_name("page.css").read_text()
    foot = f"<p>Made by <code>{escape(command)}</code>, commit <code>{escape(commit)}</code>.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head>\n<body>{body}{foot}</body></html>\n"
    )


# -- all runs -----------------------------------------------------------------------------------------------------


def _overview(runs: Sequence[RunData], title: str) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    header = (
        "run",
        "test",
        "bits a weight",
        "weights",
        "method",
        "spec",
        "seed",
        "metric",
        "loss",
        "model.qs5",
    )
    yield _table(*_filled(header, [_summary(run) for run in runs]))
    drawings = [_against_bits(group) for group in _comparable(runs) if len(group) > 1]
    if drawings:
        yield '<h3>Test results against bits</h3><div class="charts">'
        yield "".join(drawings)
        yield (
            "</div><p>Bits a weight: as stored, the mean over all numbers in Lambda-bar, B-bar, C (a complex number is "
            "two), D, encoder, gates and head; float counts as 32. Activations and state are not in it.</p>"
        )


def _filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Without the columns that no run has a value for."""
    kept = [i for i in range(len(header)) if any(row[i] != "-" for row in rows)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _summary(run: RunData) -> tuple[str, ...]:
    result, weights = run.result, run.precision.weights
    return (
        run.name,
        _outcome(run),
        f"{mean_bits(weights):.2f}",
        _bytes(stored_bytes(weights)),
        run.kind,
        run.spec,
        str(run.seed),
        result["metric"] if result else "-",
        f"{result['loss']:.4g}" if result else "-",
        "-" if run.integer_bytes is None else _bytes(run.integer_bytes),
    )


def _outcome(run: RunData) -> str:
    if run.diverged:
        return "diverged"
    return "not judged" if run.result is None else _value(run.result)


def _comparable(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Those with a result, by task and metric: what can stand on one axis."""
    groups: dict[tuple[str, str], list[RunData]] = {}
    for run in runs:
        if run.result is not None:
            groups.setdefault((run.result["task"], run.result["metric"]), []).append(run)
    return list(groups.values())


def _against_bits(runs: Sequence[RunData]) -> str:
    """Runs of one task; a series for each method and way."""
    assert runs[0].result is not None
    task, metric = runs[0].result["task"], runs[0].result["metric"]
    series: dict[str, list[RunData]] = {}
    for run in runs:
        series.setdefault(run.kind, []).append(run)
    drawing = svg.chart(
        [
            Series(
                label=kind,
                x=[mean_bits(r.precision.weights) for r in group],
                y=[_scaled(r.result) for r in group],
                marks=True,
                names=[f"{r.label}: {_value(r.result)}" for r in group],
            )
            for kind, group in series.items()
        ],
        x="stored bits a weight, mean",
        y=f"{metric}, %" if metric == "accuracy" else metric,
        log_x=True,
        title="test metric against bits",
    )
    # A chart has a legend where it has several series.
    only = "" if len(series) > 1 else f"; all of them {next(iter(series))}"
    return _figure(drawing, escape(f"{task}: test {metric}{only}"))


def _scaled(record: Mapping[str, Any] | None) -> float:
    """Accuracy in %, other metrics as they are."""
    assert record is not None
    return record["value"] * (100.0 if record["metric"] == "accuracy" else 1.0)


def _value(record: Mapping[str, Any] | None) -> str:
    assert record is not None
    return f"{_scaled(record):.2f} %" if record["metric"] == "accuracy" else f"{record['value']:.5g}"


# -- one run ------------------------------------------------------------------------------------------------------


def _run(run: RunData, *, alone: bool) -> Iterator[str]:
    yield f"<h2>{escape(run.name)}</h2>"
    yield _where_from(run)
    charts = [*_curves(run), *_confusion(run)]
    if charts:
        yield f'<div class="charts">{"".join(charts)}</div>'
    yield _sizes(run)
    if run.inspection is None:
        if not run.diverged:
            save = "" if run.shipped else " --save"
            where = "are not kept with a zoo model" if run.shipped else "were not collected"
            yield f"<p>Ranges, saturation and eigenvalues {where}: {_call(run, 'inspect', save)}</p>"
        return
    yield _eigenvalues(run.inspection)
    sites = _sites(run.inspection)
    count = len(run.inspection["sites"])
    opened = " open" if alone else ""
    yield f"<details{opened}><summary>Ranges and saturation of {count} sites</summary>{sites}</details>"


def _where_from(run: RunData) -> str:
    """Commands and commits: of the training or quantization, of the judgement; or what is still to be called."""
    m, parent = run.info["recipe"]["model"], run.info.get("parent")
    start = f", started from <code>{escape(parent)}</code>" if parent else ""
    return "".join(
        [
            *_making(run),
            *_judgement(run),
            f"<p>{escape(run.info['recipe']['task'])}: {m['layers']} layers, H={m['H']}, P={m['P']}, {m['norm']} "
            f"norm, {m['gelu']}, {m['gate']}; {escape(run.kind)}{start}. Widths: {escape(run.precision.widths)}. Data "
            f"<code>{escape(run.info['data'][:12])}</code>.</p>",
        ]
    )


def _making(run: RunData) -> Iterator[str]:
    if run.epochs:
        yield _origin("Trained", run.epochs[-1])
    elif made := run.info.get("made"):
        yield _origin("Quantized", made)
    elif run.judged is None:
        yield "<p>Which command made it is not on record.</p>"


def _judgement(run: RunData) -> Iterator[str]:
    if run.diverged:
        yield '<p class="bad">Its training diverged: no epoch gave a finite loss on validation data.</p>'
    if run.judged is not None:
        yield _origin("Judged", run.judged)
    elif not run.diverged:
        which = (
            "No result on test data comes with this zoo model"
            if run.shipped
            else "Not judged on test data yet"
        )
        yield f"<p>{which}: {_call(run, 'evaluate')}</p>"


def _origin(what: str, record: Mapping[str, Any]) -> str:
    return (
        f"<p>{what} by <code>{escape(record['command'])}</code> at commit <code>{escape(record['commit'])}</code> on "
        f"{escape(record['machine'])}, <time>{escape(record['time'])}</time></p>"
    )


def _call(run: RunData, verb: str, options: str = "") -> str:
    """A command for the reader to type."""
    return f"<code>{escape(f'qs5 {verb} {shlex.quote(run.place)}{options}')}</code>"


def _curves(run: RunData) -> Iterator[str]:
    epochs = run.epochs
    if not epochs:
        return
    x = [r["epoch"] for r in epochs]
    losses = [
        Series(label="training", x=x, y=[_finite(r["train_loss"]) for r in epochs]),
        Series(label="validation", x=x, y=[_finite(r["loss"]) for r in epochs]),
    ]
    yield _figure(svg.chart(losses, x="epoch", y="loss", title="loss by epoch"), "Loss by epoch")
    metric = epochs[0]["metric"]
    # Logits of NaN have an accuracy, too, which says nothing.
    values = Series(label=metric, x=x, y=[_scaled({**r, "value": measured(r)}) for r in epochs])
    unit = f"{metric}, %" if metric == "accuracy" else metric
    yield _figure(
        svg.chart([values], x="epoch", y=unit, title=metric), f"Validation {escape(metric)} by epoch"
    )


def _finite(value: float | None) -> float:
    return float("nan") if value is None else value


def _confusion(run: RunData) -> Iterator[str]:
    counts = ((run.judged or {}).get("extra") or {}).get("confusion")
    if counts and len(counts) <= MANY_CLASSES:
        classes = run.info.get("classes") or [str(i) for i in range(len(counts))]
        yield _figure(svg.confusion(counts, classes), "Test data: true classes in rows, answers in columns")


def _sizes(run: RunData) -> str:
    weights = run.precision.weights
    components = sorted(run.precision.components.items())
    parts = [*((MEANING.get(name, name), sites) for name, sites in components), ("all", weights)]
    rows = [(name, f"{numbers(sites):,}", _bits(sites), _bytes(stored_bytes(sites))) for name, sites in parts]
    note = "" if run.integer_bytes is None else f"<p>model.qs5: {_bytes(run.integer_bytes)}</p>"
    return "<h3>Weights</h3>" + _table(("component", "numbers", "bits", "packed"), rows) + note


def _bits(weights: Sequence[Weight]) -> str:
    """The stored width, or where sites differ the mean and the widths that occur."""
    widths = sorted({w.width for w in weights})
    if len(widths) == 1:
        return str(widths[0])
    return f"{mean_bits(weights):.2f} ({', '.join(map(str, widths))})"


def _eigenvalues(inspection: Mapping[str, Any]) -> str:
    figures = []
    for i, layer in enumerate(inspection["eigenvalues"]):
        after = layer["after"]
        caption = f"layer {i}: {len(layer['before'])} modes"
        if after is not None:
            outside = sum(re * re + im * im > 1.0 for re, im in after)
            caption += f', <span class="bad">{outside} outside</span>' if outside else ", none outside"
        figures.append(_figure(svg.unit_disc(layer["before"], after, f"eigenvalues of layer {i}"), caption))
    quantized = any(layer["after"] is not None for layer in inspection["eigenvalues"])
    what = "rings before, dots after quantization, red beyond the unit circle" if quantized else "float"
    moduli = [_moduli(layer, i) for i, layer in enumerate(inspection["eigenvalues"])]
    return (
        f'<h3>Eigenvalues (Lambda-bar): {what}</h3><div class="discs">{"".join(figures)}</div>'
        f'<div class="charts">{"".join(moduli)}</div>'
    )


def _moduli(layer: Mapping[str, Any], i: int) -> str:
    """The rim of the disc unrolled: how far from it each mode is, and on which side."""
    series = [
        Series(
            label=label,
            x=[abs(math.atan2(im, re)) for re, im in values],
            y=[math.hypot(re, im) for re, im in values],
            marks=True,
        )
        for label, values in (("before", layer["before"]), ("after", layer["after"]))
        if values is not None
    ]
    drawing = svg.chart(
        series, x="angle a step, radians", y="modulus", rule=1.0, title=f"moduli of layer {i}"
    )
    return _figure(drawing, f"layer {i}: modulus by angle; at and above the red line a mode does not decay")


def _sites(inspection: Mapping[str, Any]) -> str:
    header = ("site", "saturated", "values", "bits", "scale", "largest", "role", "shape")
    rows = [_site(site) for site in inspection["sites"]]
    note = (
        f"<p>Over {inspection['examples']} training sequences. Histograms on a square-root scale, as fractions of the "
        "grid's largest code (red lines: its ends), or of the largest value where there is no static grid.</p>"
    )
    return note + _table(header, rows, raw=(1, 2))


def _site(site: Mapping[str, Any]) -> tuple[str, ...]:
    saturated = site.get("saturated")
    share = "-" if saturated is None else f"{100 * saturated:.3f} %"
    if saturated is not None and saturated > WARN_SATURATED:
        share = f'<span class="bad">{share}</span>'
    return (
        site["site"],
        share,
        svg.histogram(site["histogram"], reach=REACH, limits=saturated is not None),
        "float" if site["bits"] is None else str(site["bits"]),
        _exponents(site.get("exponents")),
        f"{site['largest']:.4g}",
        site["role"],
        "x".join(str(n) for n in site["shape"]),
    )


def _exponents(found: Sequence[int] | None) -> str:
    if found is None:
        return "-"
    low, high = found
    return f"2^{low}" if low == high else f"2^{low}..2^{high}"


# -- HTML ---------------------------------------------------------------------------------------------------------


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], raw: Sequence[int] = ()) -> str:
    """A table that scrolls sideways on a phone, words to the left, numbers to the right. raw: columns of HTML."""
    show: Callable[[int, str], str] = lambda i, text: text if i in raw else escape(text)  # noqa: E731
    side = [
        "" if any(text[:1].isdigit() for text in column) else " class=words"
        for column in zip(*rows, strict=True)
    ] or [""] * len(header)
    head = "".join(f"<th{side[i]}>{escape(name)}</th>" for i, name in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f"<td{side[i]}>{show(i, cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>" if drawing else ""


def _bytes(n: float) -> str:
    return f"{n / 1000:,.1f} kB" if n >= 1000 else f"{n:.0f} B"
