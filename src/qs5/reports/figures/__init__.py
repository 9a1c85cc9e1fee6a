"""The paper's figures for print, PNG and SVG with the data beside them as CSV. Needs the extra `figures`."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qs5.errors import UserError
from qs5.files import write_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 200
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "qs5",  # the same drawing is the same file
    "lines.linewidth": 1.4,
}
LINES = (
    ("#0072b2", "-"),
    ("#d55e00", "--"),
    ("#009e73", "-."),
    ("#cc79a7", ":"),
    ("#56b4e9", (0, (3, 1, 1, 1))),
)
"""Colours that the colour-blind tell apart, and dashes that a black-and-white print does."""


def new_figure(width: float, height: float, **subplots: Any) -> tuple["Figure", Any]:
    """A figure of so many inches, and its axes. Raises UserError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("figures need the extra: pip install 'qs5[figures]'") from error
    # Not pyplot: nothing here has a window or a state that another figure could see.
    matplotlib.rcParams.update(STYLE)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**subplots)


def save_figure(
    folder: Path, name: str, figure: "Figure", header: Sequence[str], rows: Iterable[Sequence[object]]
) -> tuple[Path, ...]:
    """Write NAME.png, NAME.svg and NAME.csv; returns their paths."""
    paths = tuple(folder / f"{name}.{kind}" for kind in ("png", "svg", "csv"))
    for path in paths[:2]:
        data = io.BytesIO()
        # No date: the same drawing is the same file.
        figure.savefig(
            data,
            format=path.suffix[1:],
            dpi=PNG_DPI,
            metadata={"Date": None} if path.suffix == ".svg" else {},
        )
        write_beside(path, data.getvalue())
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_beside(paths[2], text.getvalue().encode())
    return paths
