"""Figures 2 and 4: error against delay under the four panels of quantization, and samples of the series."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qs5.errors import UserError
from qs5.reports.figures import LINES, new_figure
from qs5.reports.mackey_glass import COMMAND, CURVES, Point, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "a": "(a) A, B, C, D and SSM activations",
    "b": "(b) A alone",
    "c": "(c) all but A",
    "d": "(d) SSM activations alone",
}
HEADER = (
    "panel",
    "bits",
    "tau",
    "runs",
    "mean",
    "lowest",
    "highest",
    "as_printed",
    "diverged",
    "paper",
    "command",
)
SAMPLE_STEPS = 100


def rows_of(
    points: Sequence[Point],
    paper: Mapping[tuple[str, float], float],
    *,
    taus: Sequence[float],
    more: str = "",
) -> Iterator[tuple[str, ...]]:
    """The data behind figure 2, with what was read off the paper's (curve, delay) where it was.

    A cell that was not run has no numbers, and the command that runs it. more: options of that command.
    """
    found = {(p.panel, p.bits, p.tau): p for p in points}
    planned = [(panel, bits, tau) for panel, bits in CURVES for tau in taus]
    for cell in (*planned, *(key for key in found if key not in planned)):
        panel, bits, tau = cell
        theirs = paper.get((name_of(panel, bits), tau))
        yield (
            panel, "float" if bits is None else str(bits), f"{tau:g}", *_numbers(found.get(cell)),
            "" if theirs is None else f"{theirs:g}", "" if cell in found else _command(panel, bits, more),
        )  # fmt: skip


def _numbers(p: Point | None) -> tuple[str, ...]:
    if p is None or not p.values:
        return ("0", "", "", "", "", str(p.diverged) if p else "0")
    printed = f"{np.mean(p.printed):.2f}" if p.printed else ""
    values = (np.mean(p.values), min(p.values), max(p.values))
    return (str(len(p.values)), *(f"{v:.2f}" for v in values), printed, str(p.diverged))


def _command(panel: str, bits: int | None, more: str) -> str:
    return f"{COMMAND} --panels {panel}" + ("" if bits is None else f" --bits {bits}") + more


def draw_errors(
    points: Sequence[Point], paper: Mapping[tuple[str, float], float], *, title: str = ""
) -> "Figure":
    """Figure 2: a line for the mean over seeds, a band from the lowest to the highest, crosses for the paper's."""
    points = [p for p in points if p.values]
    figure, axes = new_figure(7.0, 5.6, nrows=2, ncols=2, sharex=True, sharey=True)
    widths = sorted({p.bits for p in points if p.bits is not None})
    styles = {None: ("black", "-"), **dict(zip(widths, LINES, strict=False))}
    for ax, (panel, heading) in zip(axes.flat, PANELS.items(), strict=True):
        for bits in (None, *widths):
            curve = [p for p in points if p.bits == bits and p.panel in (panel, "float")]
            if not curve:
                continue
            colour, dash = styles[bits]
            tau = [p.tau for p in curve]
            label = "float" if bits is None else f"{bits} bit{'s' if bits > 1 else ''}"
            ax.plot(tau, [np.mean(p.values) for p in curve], color=colour, ls=dash, label=label)
            ax.fill_between(
                tau,
                [min(p.values) for p in curve],
                [max(p.values) for p in curve],
                color=colour,
                alpha=0.15,
                lw=0,
            )
            name = name_of(panel, bits)
            theirs = [(t, v) for (n, t), v in paper.items() if n == name]
            if theirs:
                ax.plot(*zip(*theirs, strict=True), "x", color=colour, ms=4)
        ax.set_title(heading, fontsize=9)
    for ax in axes[1]:
        ax.set_xlabel("delay tau")
    for ax in axes[:, 0]:
        ax.set_ylabel("sMAPE")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if paper:
        # A mark of its own: in the panels it has the colour of its line.
        handles += axes[0, 0].plot([], [], "x", color="grey", ms=4)
        labels.append("the paper's, read by eye")
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def read_samples(path: Path) -> dict[float, np.ndarray]:
    """Series by delay from a CSV with the columns tau, step and one a channel; (steps, channels).

    Raises UserError for other columns, and for a row that is damaged, with its line.
    """
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    again = "make it again"
    if not rows or rows[0][:2] != ["tau", "step"] or len(rows[0]) < 3:
        raise UserError(f"{path}: expected columns tau, step and one a channel, got {rows[:1]}; {again}")
    found: dict[float, list[list[float]]] = {}
    for line, row in enumerate(rows[1:], 2):
        try:
            tau, _, *values = map(float, row)
        except ValueError as error:
            raise UserError(
                f"{path}, line {line}: expected numbers, got {','.join(row)[:80]!r}; {again}"
            ) from error
        if len(row) != len(rows[0]):
            raise UserError(f"{path}, line {line}: expected {len(rows[0])} numbers, got {len(row)}; {again}")
        found.setdefault(tau, []).append(values)
    return {tau: np.array(values) for tau, values in found.items()}


def draw_samples(series: Mapping[float, np.ndarray]) -> "Figure":
    """Figure 4: the first steps of one sample a delay, all channels."""
    figure, axes = new_figure(7.0, 1.6 * len(series) + 0.4, nrows=len(series), sharex=True, squeeze=False)
    for ax, (tau, values) in zip(axes[:, 0], series.items(), strict=True):
        ax.plot(values[:SAMPLE_STEPS], lw=0.9)
        ax.set_ylabel(f"tau = {tau:g}")
    axes[-1, 0].set_xlabel("step")
    return figure
