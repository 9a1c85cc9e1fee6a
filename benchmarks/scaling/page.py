"""The page of the scaling measurements: tables, fitted slopes, a drawing."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scaling.points import BASE, SPEC, Point, axes

Records = dict[str, dict[str, Any]]
LINEAR_FROM = 1024
"""Shorter sequences are left out of a fitted slope: there a step also has its fixed costs."""
KINDS: dict[str, dict[str, bool]] = {
    "float": {},
    "QAT": {"quantized": True},
    "float, remat": {"remat": True},
}
X_OF = {"length": "length", "width": "H", "layers": "layers", "batch": "batch", "threads": "threads"}
HEADER = ("ms a step", "tokens a second", "peak MiB", "MiB of the step")
ABOUT = (
    "One training step (loss, gradient, optimizer) of the sMNIST model with layer norm, native kernels, random images; "
    f"but for what a table varies: {BASE.layers} layers, H = {BASE.H}, P = {BASE.P}, batch {BASE.batch}, "
    f"{BASE.length} steps, {BASE.threads} threads, no dropout. QAT: {SPEC}. Every row is a process of its own. Peak: "
    "resident memory of the process, Python, XLA and its compiler included. MiB of the step: what the peak rose by "
    "when the first step ran, its compilation included. Remat: `--train.remat`."
)


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The exponent p of y = c x^p, fitted by least squares to the logarithms."""
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def write(records: Records, out: Path) -> str:
    """scaling.md, and the drawing where matplotlib is; returns the text."""
    from qs5.files import write_beside
    from qs5.training import record

    tables = "\n".join(f"## {axis.capitalize()}\n\n{table(axis, records)}" for axis in axes())
    commits = ", ".join(sorted({r["commit"] for r in records.values()}))
    facts = f"- machine: {record.machine()}\n- commits: {commits}\n- command: python -m benchmarks.scaling\n"
    picture = "![Time and memory](scaling.svg)\n\n" if draw(records, out) else ""
    text = f"# Scaling of a training step\n\n{ABOUT}\n\n{facts}\n{fits(records)}\n{picture}{tables}"
    write_beside(out / "scaling.md", text.encode())
    return text


def of_kind(points: Sequence[Point], kind: str) -> list[Point]:
    """The points in one of `KINDS`."""
    return [dataclasses.replace(point, **KINDS[kind]) for point in points]


def table(axis: str, records: Records) -> str:
    """A row a point and kind; a point that failed says why, one that was not measured is left out."""
    from qs5.reports.tables import markdown

    rows = []
    for kind in KINDS:
        for point in of_kind(axes()[axis], kind):
            if (found := records.get(point.key)) is not None:
                rows.append((kind, str(getattr(point, X_OF[axis])), *_cells(point, found)))
    return markdown(("", axis, *HEADER), rows)


def _cells(point: Point, found: dict[str, Any]) -> tuple[str, ...]:
    if "error" in found:
        return (f"failed: {found['error'].splitlines()[-1][:120]}", "-", "-", "-")
    seconds = found["seconds"]
    time = ("-", "-") if seconds is None else (f"{1000 * seconds:.1f}", f"{point.tokens / seconds:,.0f}")
    return (*time, str(found["peak_mib"]), str(found["peak_mib"] - found["before_mib"]))


def curve(axis: str, kind: str, records: Records, what: str) -> tuple[list[float], list[float]]:
    """x, and seconds or MiB of the step, of the points that have it."""
    xs, ys = [], []
    for point in of_kind(axes()[axis], kind):
        found = records.get(point.key, {})
        y = found.get("seconds") if what == "seconds" else _rise(found)
        if y:
            xs.append(float(getattr(point, X_OF[axis])))
            ys.append(float(y))
    return xs, ys


def _rise(found: dict[str, Any]) -> float | None:
    return found["peak_mib"] - found["before_mib"] if "peak_mib" in found else None


def fits(records: Records) -> str:
    """The exponents of length, for time and memory."""
    from qs5.reports.tables import markdown

    rows = [(kind, *(_fit(kind, records, what) for what in ("seconds", "MiB"))) for kind in KINDS]
    about = f"Time and memory as length^p, p fitted from {LINEAR_FROM} steps on (1: linear).\n\n"
    return about + markdown(("", "p of time", "p of memory"), rows)


def _fit(kind: str, records: Records, what: str) -> str:
    xs, ys = curve("length", kind, records, what)
    chosen = [(x, y) for x, y in zip(xs, ys, strict=True) if x >= LINEAR_FROM]
    return f"{slope(*zip(*chosen, strict=True)):.2f}" if len(chosen) > 2 else "-"


def draw(records: Records, out: Path) -> bool:
    """scaling.{png,svg,csv}: time above, memory below, an axis a column. False without matplotlib."""
    from qs5.errors import UserError
    from qs5.reports.figures import LINES, new_figure, save_figure

    names = [axis for axis in axes() if axis != "threads"]
    try:
        figure, panels = new_figure(11.0, 5.2, nrows=2, ncols=len(names))
    except UserError as error:
        print(f"no drawing: {error}")
        return False
    rows = []
    for row, what in zip(panels, ("seconds", "MiB"), strict=True):
        for panel, axis in zip(row, names, strict=True):
            for kind, (colour, dashes) in zip(KINDS, LINES, strict=False):
                xs, ys = curve(axis, kind, records, what)
                rows += [(axis, kind, what, x, y) for x, y in zip(xs, ys, strict=True)]
                panel.plot(xs, ys, color=colour, linestyle=dashes, marker="o", markersize=3, label=kind)
            _label(panel, axis, what)
        _legend(row[0])
    save_figure(out, "scaling", figure, ("axis", "kind", "quantity", "x", "y"), rows)
    return True


def _label(panel: Any, axis: str, what: str) -> None:
    ticks = [getattr(point, X_OF[axis]) for point in axes()[axis]]
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2 if what == "MiB" else 10)
    panel.set_xticks(ticks, [f"{t:,}" for t in ticks], rotation=45 if max(ticks) > 999 else 0)
    panel.set_xlabel("width H" if axis == "width" else axis)
    panel.set_ylabel("seconds a step" if what == "seconds" else "MiB of a step")


def _legend(panel: Any) -> None:
    if any(len(line.get_xdata()) for line in panel.get_lines()):
        panel.legend(frameon=False)
    assert math.isfinite(panel.get_xlim()[1])
