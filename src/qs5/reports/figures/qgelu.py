"""Figure 3: qGELU of quantized inputs, under the range rule that the paper prints and the one that it ran."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from qs5.reports.figures import LINES, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"paper": "equation (3): max|x| is a code", "aqt": "AQT, as run: max|x| is the edge of a bucket"}
Curves = Mapping[tuple[str, int], np.ndarray]
"""(range rule, bits) -> qGELU of x at these bits."""


def header_of(curves: Curves) -> tuple[str, ...]:
    """Columns of the data: x, the float functions, and one for each curve."""
    return ("x", "gelu", "qgelu", *(f"{rule}_{bits}" for rule, bits in curves))


def rows_of(x: np.ndarray, gelu: np.ndarray, qgelu: np.ndarray, curves: Curves) -> Iterator[list[str]]:
    """One row an x."""
    for values in np.stack([x, gelu, qgelu, *curves.values()], axis=1):
        yield [f"{v:.7g}" for v in values]


def draw(x: np.ndarray, gelu: np.ndarray, qgelu: np.ndarray, curves: Curves) -> "Figure":
    """Above the functions, below what quantization adds to qGELU; one column a range rule."""
    rules = list(dict.fromkeys(rule for rule, _ in curves))
    figure, axes = new_figure(7.0, 5.0, nrows=2, ncols=len(rules), sharex=True, sharey="row", squeeze=False)
    for column, rule in zip(axes.T, rules, strict=True):
        column[0].plot(x, gelu, color="black", lw=1.0, label="GELU")
        for (name, bits), (colour, dash) in zip(
            [key for key in curves if key[0] == rule], LINES, strict=False
        ):
            style = {
                "color": colour,
                "ls": dash,
                "label": f"qGELU, {bits} bits",
                "drawstyle": "steps-mid",
                "lw": 1.0,
            }
            column[0].plot(x, curves[name, bits], **style)
            column[1].plot(x, curves[name, bits] - qgelu, **style)
        column[0].set_title(TITLES.get(rule, rule), fontsize=9)
        column[1].set_xlabel("x")
    axes[0, 0].set_ylabel("value")
    axes[1, 0].set_ylabel("quantized qGELU - float qGELU")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure
