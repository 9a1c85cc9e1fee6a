"""Figures 2 and 4: error against delay under the four panels of quantization, and samples of the series."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qs5.errors import UserError
from qs5.reports.figures import LINES, new_figure
from qs5.reports.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "a": "(a) A, B, C, D and SSM activations",
    "b": "(b) A alone",
    "c": "(c) all but A",
    "d": "(d) SSM activations alone",
}
HEADER = ("panel", "bits", "tau", "runs", "mean", "lowest", "highest", "paper")
SAMPLE_STEPS = 100


class Point(NamedTuple):
    """sMAPE over the seeds of one panel ("float" for all), bits (None: float) and delay."""

    panel: str
    bits: int | None
    tau: float
    values: tuple[float, ...]


def points_of(results: Sequence[Result]) -> list[Point]:
    """The recorded runs of figure 2: task mackey_glass, with `panel`, `bits` and `tau` in the record's `extra`.

    A seed that was run twice counts once, the later run.
    """
    found: dict[tuple[str, int | None, float], dict[int, float]] = {}
    for r in results:
        if r.task == "mackey_glass" and "tau" in r.extra:
            bits = r.extra.get("bits")
            panel = "float" if bits is None else str(r.extra.get("panel"))
            found.setdefault((panel, bits, float(r.extra["tau"])), {})[r.seed] = r.value
    keys = sorted(found, key=lambda k: (k[0], k[1] or 0, k[2]))
    return [Point(*key, tuple(found[key].values())) for key in keys]


def rows_of(points: Sequence[Point], paper: Mapping[tuple[str, float], float]) -> Iterator[tuple[str, ...]]:
    """The data behind figure 2, with what was read off the paper's (curve, delay) where it was."""
    for p in points:
        name = "float" if p.bits is None else f"{p.panel} {p.bits}"
        theirs = paper.get((name, p.tau))
        yield (
            p.panel, "float" if p.bits is None else str(p.bits), f"{p.tau:g}", str(len(p.values)),
            f"{np.mean(p.values):.2f}", f"{min(p.values):.2f}", f"{max(p.values):.2f}",
            "" if theirs is None else f"{theirs:g}",
        )  # fmt: skip


def draw_errors(points: Sequence[Point], paper: Mapping[tuple[str, float], float]) -> "Figure":
    """Figure 2: a line for the mean over seeds, a band from the lowest to the highest, crosses for the paper's."""
    figure, axes = new_figure(7.0, 5.6, nrows=2, ncols=2, sharex=True, sharey=True)
    widths = sorted({p.bits for p in points if p.bits is not None})
    styles = {None: ("black", "-"), **dict(zip(widths, LINES, strict=False))}
    for ax, (panel, title) in zip(axes.flat, PANELS.items(), strict=True):
        for bits in (None, *widths):
            curve = [p for p in points if p.bits == bits and p.panel in (panel, "float")]
            if not curve:
                continue
            colour, dash = styles[bits]
            tau = [p.tau for p in curve]
            label = "float" if bits is None else f"{bits} bits"
            ax.plot(tau, [np.mean(p.values) for p in curve], color=colour, ls=dash, label=label)
            ax.fill_between(
                tau,
                [min(p.values) for p in curve],
                [max(p.values) for p in curve],
                color=colour,
                alpha=0.15,
                lw=0,
            )
            name = "float" if bits is None else f"{panel} {bits}"
            theirs = [(t, v) for (n, t), v in paper.items() if n == name]
            if theirs:
                ax.plot(*zip(*theirs, strict=True), "x", color=colour, ms=4)
        ax.set_title(title, fontsize=9)
    for ax in axes[1]:
        ax.set_xlabel("delay tau")
    for ax in axes[:, 0]:
        ax.set_ylabel("sMAPE")
    axes[0, 0].legend(frameon=False, fontsize=8, title="x: the paper's, read by eye", title_fontsize=7)
    return figure


def read_samples(path: Path) -> dict[float, np.ndarray]:
    """Series by delay from a CSV with the columns tau, step and one a channel; (steps, channels)."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0][:2] != ["tau", "step"] or len(rows[0]) < 3:
        raise UserError(
            f"{path}: expected columns tau, step and one a channel, got {rows[:1]}; make it again"
        )
    found: dict[float, list[list[float]]] = {}
    for row in rows[1:]:
        found.setdefault(float(row[0]), []).append([float(v) for v in row[2:]])
    return {tau: np.array(values) for tau, values in found.items()}


def draw_samples(series: Mapping[float, np.ndarray]) -> "Figure":
    """Figure 4: the first steps of one sample a delay, all channels."""
    figure, axes = new_figure(7.0, 1.6 * len(series) + 0.4, nrows=len(series), sharex=True, squeeze=False)
    for ax, (tau, values) in zip(axes[:, 0], series.items(), strict=True):
        ax.plot(values[:SAMPLE_STEPS], lw=0.9)
        ax.set_ylabel(f"tau = {tau:g}")
    axes[-1, 0].set_xlabel("step")
    return figure
