"""Figure 1: a network with its quantization sites, one box an operation, in the order of the forward pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qs5.reports.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = ("site", "operation", "role", "shape", "reads", "weights")
COLOURS = {
    "act": "#cfe3f5",
    "ssm_act": "#a9cdee",
    "state": "#f9d9a8",
    "residual": "#d7ecd0",
    "logits": "#e6e6e6",
    "dense": "#ead4e8",
    "a": "#f2b6a0",
    "b": "#f6cdbf",
    "c": "#f6cdbf",
    "d": "#f6cdbf",
}
"""Fill of the sites of a role; the role is written beside each box as well."""
ROW, WIDTH, WEIGHT_X, BOX = 1.0, 3.4, -4.3, 0.66


@dataclass(frozen=True, kw_only=True)
class Node:
    """A site, the operation that writes it, what that reads, and the weight sites it uses: (name, role, shape)."""

    site: str
    operation: str
    role: str
    shape: str
    reads: tuple[str, ...]
    weights: tuple[tuple[str, str, str], ...] = ()


def rows_of(nodes: Sequence[Node]) -> Iterator[tuple[str, ...]]:
    """The data behind the figure: every site once."""
    for node in nodes:
        for name, role, shape in node.weights:
            yield name, "weight", role, shape, "", ""
        weights = " ".join(name for name, *_ in node.weights)
        yield node.site, node.operation, node.role, node.shape, " ".join(node.reads), weights


def draw(nodes: Sequence[Node], *, layers: int, title: str) -> "Figure":
    """Top to bottom: activations in the middle, weights on the left, connections past other boxes on the right."""
    figure, axes = new_figure(7.0, 0.52 * len(nodes) + 0.9)
    row = {node.site: -ROW * i for i, node in enumerate(nodes)}
    _draw_frame(axes, [row[n.site] for n in nodes if n.site.startswith("layers.")], layers)
    for node in nodes:
        _draw_box(axes, 0.0, row[node.site], WIDTH, (node.operation, node.site), node.role)
        axes.text(WIDTH / 2 + 0.1, row[node.site] + 0.2, node.role, fontsize=7, color="#444444", va="center")
        _draw_weights(axes, node, row[node.site])
    past = 0
    for node in nodes:
        for source in node.reads:
            near = row[source] - row[node.site] == ROW
            past += not near
            _connect(axes, row[source], row[node.site], 0.0 if near else 0.75 + 0.3 * past)
    for x, text in (
        (WEIGHT_X, "weights: component, shape, site"),
        (0.0, "activations: operation, site (component)"),
    ):
        axes.text(x, 0.62, text, ha="center", fontsize=8, style="italic", color="#444444")
    axes.set(xlim=(-6.6, 4.2), ylim=(-ROW * len(nodes) + 0.3, 0.95), title=title)
    axes.axis("off")
    return figure


def _draw_box(axes: Any, x: float, y: float, width: float, lines: tuple[str, str], role: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.12"
    box = FancyBboxPatch(
        (x - width / 2, y - BOX / 2),
        width,
        BOX,
        boxstyle=style,
        fc=COLOURS[role],
        ec="#333333",
        lw=0.8,
        zorder=2,
    )
    axes.add_patch(box)
    axes.text(x, y + 0.12, lines[0], ha="center", va="center", fontsize=8, weight="bold", zorder=3)
    axes.text(x, y - 0.17, lines[1], ha="center", va="center", fontsize=7, family="monospace", zorder=3)


def _draw_weights(axes: Any, node: Node, y: float) -> None:
    """The weights of an operation share its row."""
    n = len(node.weights)
    width = 3.4 / max(n, 1) - 0.1 * (n > 1)
    for i, (name, role, shape) in enumerate(node.weights):
        x = WEIGHT_X + (i - (n - 1) / 2) * (width + 0.1)
        short = name if n == 1 else f"...{name.rsplit('.', 1)[1]}"
        _draw_box(axes, x, y, width, (f"{role}  {shape}", short), role)
    if n:
        _arrow(axes, (WEIGHT_X + 1.75, y), (-WIDTH / 2, y))


def _connect(axes: Any, top: float, bottom: float, bulge: float) -> None:
    """Straight down to the next row; around the right side past others."""
    if not bulge:
        _arrow(axes, (0.0, top - BOX / 2), (0.0, bottom + BOX / 2))
        return
    side = WIDTH / 2
    axes.plot(
        [side, side + bulge, side + bulge],
        [top - 0.1, top - 0.1, bottom + 0.05],
        color="#333333",
        lw=0.9,
        zorder=1,
    )
    _arrow(axes, (side + bulge, bottom + 0.05), (side, bottom + 0.05))


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": "#333333", "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)


def _draw_frame(axes: Any, rows: list[float], layers: int) -> None:
    """What is repeated."""
    from matplotlib.patches import Rectangle

    low, high = min(rows) - 0.48, max(rows) + 0.48
    axes.add_patch(
        Rectangle((-6.4, low), 10.4, high - low, fc="#fafafa", ec="#888888", ls="--", lw=0.8, zorder=0)
    )
    axes.text(-6.25, high - 0.3, f"{layers} layers", fontsize=9, weight="bold", color="#555555")
