"""One self-contained HTML page about runs: no script, no picture, no font to load."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from qs5.reports import svg
from qs5.reports.runs import COMPONENTS, RunData
from qs5.reports.svg import Series

REACH = 1.25
"""Histograms of inspection.json reach so far beyond the largest code."""
MANY_CLASSES = 26
"""Up to so many, a confusion matrix is drawn."""
WARN_SATURATED = 0.001


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
    judged = [(run, run.judged) for run in runs if run.judged is not None]
    if judged:
        yield f"<h3>Test {escape(judged[0][1]['metric'])} against bits</h3>"
        yield _figure(_against_bits(runs), "Bits: mean over the weights of the network; float counts as 32.")


def _filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Without the columns that no run has a value for."""
    kept = [i for i in range(len(header)) if any(row[i] != "-" for row in rows)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _summary(run: RunData) -> tuple[str, ...]:
    judged, spec = run.judged, run.info.get("spec")
    value = _value(judged) if judged else "not judged"
    return (
        run.name,
        value,
        f"{run.weight_bits:.2f}",
        _bytes(sum(run.bits_of(c) * n for c, n in run.sizes.items()) / 8),
        run.info["method"],
        "float" if spec is None else spec["name"],
        str(run.seed),
        judged["metric"] if judged else "-",
        f"{judged['loss']:.4g}" if judged else "-",
        "-" if run.integer_bytes is None else _bytes(run.integer_bytes),
    )


def _against_bits(runs: Sequence[RunData]) -> str:
    series: dict[str, list[RunData]] = {}
    for run in runs:
        if run.judged is not None:
            series.setdefault(run.info["method"], []).append(run)
    metric = next(run.judged["metric"] for run in runs if run.judged is not None)
    return svg.chart(
        [
            Series(
                label=method,
                x=[r.weight_bits for r in group],
                y=[_scaled(r.judged) for r in group],
                marks=True,
                names=[f"{r.label}: {_value(r.judged)}" for r in group],
            )
            for method, group in series.items()
        ],
        x="bits a weight",
        y=f"{metric}, %" if metric == "accuracy" else metric,
        log_x=True,
        title="test metric against bits",
    )


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
        yield (
            "<p>Ranges, saturation and eigenvalues were not collected: "
            f"<code>qs5 inspect {escape(run.name)} --save</code></p>"
        )
        return
    yield _eigenvalues(run.inspection)
    sites = _sites(run.inspection)
    count = len(run.inspection["sites"])
    opened = " open" if alone else ""
    yield f"<details{opened}><summary>Ranges and saturation of {count} sites</summary>{sites}</details>"


def _where_from(run: RunData) -> str:
    """Commands and commits: of the training, of the judgement."""
    lines = []
    for what, record in (("trained", run.epochs[-1] if run.epochs else None), ("judged", run.judged)):
        if record is not None:
            lines.append(
                f"<p>{what} by <code>{escape(record['command'])}</code> at commit "
                f"<code>{escape(record['commit'])}</code> on {escape(record['machine'])}, {escape(record['time'])}</p>"
            )
    m, parent = run.info["recipe"]["model"], run.info.get("parent")
    spec = run.info.get("spec")
    widths = "float" if spec is None else _widths(spec)
    start = f", started from <code>{escape(parent)}</code>" if parent else ""
    lines.append(
        f"<p>{escape(run.info['recipe']['task'])}: {m['layers']} layers, H={m['H']}, P={m['P']}, {m['norm']} norm, "
        f"{m['gelu']}, {m['gate']}; {escape(run.info['method'])}{start}. Widths: {widths}. Data "
        f"<code>{escape(run.info['data'][:12])}</code>.</p>"
    )
    return "".join(lines)


def _widths(spec: Mapping[str, Any]) -> str:
    names = (
        *COMPONENTS,
        "ssm_act",
        "act",
        *(("state", "residual") if spec["schedule"] == "sequential" else ()),
    )
    return (
        ", ".join(f"{n} {spec[n] if spec[n] is not None else 'float'}" for n in names)
        + f" ({spec['schedule']})"
    )


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
    values = Series(label=metric, x=x, y=[_scaled(r) for r in epochs])
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
    rows = [
        (name, f"{n:,}", str(run.bits_of(name)), _bytes(run.bits_of(name) * n / 8))
        for name, n in run.sizes.items()
    ]
    total = sum(run.sizes.values())
    packed = sum(run.bits_of(name) * n for name, n in run.sizes.items()) / 8
    rows.append(("all", f"{total:,}", f"{run.weight_bits:.2f}", _bytes(packed)))
    note = "" if run.integer_bytes is None else f"<p>model.qs5: {_bytes(run.integer_bytes)}</p>"
    return "<h3>Weights</h3>" + _table(("component", "numbers", "bits", "packed"), rows) + note


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
