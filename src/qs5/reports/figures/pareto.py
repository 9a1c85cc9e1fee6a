"""What bits buy: divergence from the float model, and its metric, against the cost of the integer model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qs5.reports.figures import LINES, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = ("name", "series", "bytes", "bit_operations", "divergence", "metric", "on_front", "spec")
MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One integer model. series: which way it was found; label: written beside it, where there is one.

    bytes: of its file; ops: bit operations a step; divergence: from the float model, see `qs5.search.measure`; metric:
    accuracy in [0, 1], or the task's; front: no other point is better in both cost and divergence.
    """

    name: str
    series: str
    bytes: int
    ops: int
    divergence: float
    metric: float
    front: bool = False
    label: str = ""
    spec: str = ""


def rows_of(points: Sequence[Point]) -> Iterator[tuple[str, ...]]:
    """The data behind the figure."""
    for p in points:
        numbers = (str(p.bytes), str(p.ops), f"{p.divergence:.8g}", f"{p.metric:.8g}")
        yield p.name, p.series, *numbers, "yes" if p.front else "no", p.spec


def draw(points: Sequence[Point], *, cost: str, metric: str, level: float | None, title: str) -> "Figure":
    """Two panels: divergence (logarithmic) and metric against cost; a line through the points of each series' front.

    cost: "bytes" or "ops". level: the float model's metric.
    """
    figure, (left, right) = new_figure(7.0, 3.2, ncols=2, sharex=True)
    percent = metric == "accuracy"
    for number, series in enumerate(dict.fromkeys(p.series for p in points)):
        colour, dash = LINES[number % len(LINES)]
        mine = sorted((p for p in points if p.series == series), key=lambda p: _cost(p, cost))
        for ax, value in ((left, _divergence), (right, lambda p: p.metric * (100 if percent else 1))):
            ax.plot(
                [_cost(p, cost) for p in mine], [value(p) for p in mine], MARKERS[number % len(MARKERS)],
                color=colour, ms=4, mfc="none", label=series,
            )  # fmt: skip
            front = [p for p in mine if p.front]
            ax.plot([_cost(p, cost) for p in front], [value(p) for p in front], color=colour, ls=dash, lw=1)
        for p in mine:
            if p.label:
                left.annotate(
                    p.label,
                    (_cost(p, cost), _divergence(p)),
                    fontsize=6,
                    xytext=(3, 3),
                    textcoords="offset points",
                )
    left.set_yscale("log")
    left.set_ylabel("divergence from the float model")
    right.set_ylabel(f"{metric} in %" if percent else metric)
    if level is not None:
        right.axhline(level * (100 if percent else 1), color="black", lw=0.8, ls=":", label="float")
    for ax in (left, right):
        ax.set_xlabel("kilobytes of the file" if cost == "bytes" else "million bit operations a step")
    right.legend(frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=9)
    return figure


def _cost(p: Point, kind: str) -> float:
    return p.bytes / 1e3 if kind == "bytes" else p.ops / 1e6


def _divergence(p: Point) -> float:
    return max(p.divergence, 1e-6)
