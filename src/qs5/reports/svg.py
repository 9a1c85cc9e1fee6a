"""Small charts as SVG text for a web page: readable at the width of a phone, no script, nothing to load."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 34
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3", "4 1", "10 4")
CORNERS = (
    (),  # a circle
    ((-4, -4), (4, -4), (4, 4), (-4, 4)),
    ((0, -5), (4.8, 3.6), (-4.8, 3.6)),
    ((0, -5.6), (5.6, 0), (0, 5.6), (-5.6, 0)),
    ((0, 5), (4.8, -3.6), (-4.8, -3.6)),
    ((-1.8, -5), (1.8, -5), (1.8, 5), (-1.8, 5)),
    ((-5, -1.8), (5, -1.8), (5, 1.8), (-5, 1.8)),
)
"""Shapes of marks, about their middle: series can be told apart without colours, too."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one name; joined by a line unless `marks`. names: what a pointer over a mark shows."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    marks: bool = False
    names: Sequence[str] = ()


@dataclass(frozen=True)
class _Scale:
    """Data coordinates to pixels; log: of the logarithm to base 10."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            low, high, value = (math.log10(v) for v in (self.low, self.high, value))
        else:
            low, high = self.low, self.high
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers in [low, high], about `count` of them."""
    raw = (high - low) / max(count - 1, 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = min((m * size for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def chart(
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    rule: float | None = None,
    title: str = "",
) -> str:
    """Lines or marks over common axes, a legend below where there are several; `rule`: a red line at a height."""
    shown = [s for s in series if len(s.x)]
    xs = [v for s in shown for v in s.x]
    ys = [v for s in shown for v in s.y if math.isfinite(v)] + ([] if rule is None else [rule])
    if not xs or not ys:
        return ""
    legend = shown if len(shown) > 1 else []
    height = HEIGHT + 16 * math.ceil(len(legend) / 2)
    sx = _Scale(*_padded(xs, log=log_x), LEFT, WIDTH - RIGHT, log_x)
    sy = _Scale(*_padded(ys, log=False), HEIGHT - BOTTOM, TOP)
    parts = [_axes(sx, sy, x, y, _x_ticks(sx, whole=all(isinstance(v, int) for v in xs)))]
    if rule is not None:
        parts.append(_rule(LEFT, sy(rule), WIDTH - RIGHT, sy(rule), "#c00000"))
    for i, s in enumerate(shown):
        parts.append(_marks(s, sx, sy, i) if s.marks else _line(s, sx, sy, i))
    parts += [_legend(s, i) for i, s in enumerate(legend)]
    return _svg(WIDTH, height, "".join(parts), title)


def _padded(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:  # out to powers of two, where the ticks are: two of them at least
        first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
        return 2.0**first / 1.15, 2.0 ** max(last, first + 1) * 1.15
    pad = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - pad, high + pad


def _axes(sx: _Scale, sy: _Scale, x: str, y: str, x_ticks: Sequence[float]) -> str:
    parts = []
    for tick in ticks(sy.low, sy.high):
        parts.append(_rule(LEFT, sy(tick), WIDTH - RIGHT, sy(tick)))
        parts.append(_text(LEFT - 5, sy(tick) + 3.5, f"{tick:.4g}", "end"))
    for tick in x_ticks:
        parts.append(_rule(sx(tick), HEIGHT - BOTTOM, sx(tick), HEIGHT - BOTTOM + 4, "#666"))
        parts.append(_text(sx(tick), HEIGHT - BOTTOM + 15, f"{tick:.4g}", "middle"))
    parts.append(_rule(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "#666"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, x, "middle"))
    parts.append(
        f'<text x="11" y="{(TOP + HEIGHT - BOTTOM) / 2:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 11 {(TOP + HEIGHT - BOTTOM) / 2:.1f})">{escape(y)}</text>'
    )
    return "".join(parts)


def _x_ticks(sx: _Scale, *, whole: bool) -> list[float]:
    """whole: of counts, such as epochs, of which there is no half."""
    if sx.log:
        return [v for v in (1, 2, 4, 8, 16, 32, 64) if sx.low <= v <= sx.high]
    found = ticks(sx.low, sx.high, 6)
    return [v for v in found if not whole or abs(v - round(v)) < 1e-9]


def _line(s: Series, sx: _Scale, sy: _Scale, i: int) -> str:
    places = [(sx(a), sy(b)) for a, b in zip(s.x, s.y, strict=True) if math.isfinite(b)]
    if len(places) == 1:  # which no line would show
        return _mark(*places[0], i)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    dash = DASHES[i % len(DASHES)]
    colour = COLOURS[i % len(COLOURS)]
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}"/>'


def _marks(s: Series, sx: _Scale, sy: _Scale, i: int) -> str:
    names = s.names or [""] * len(s.x)
    return "".join(
        _mark(sx(a), sy(b), i, f"<title>{escape(name)}</title>")
        for a, b, name in zip(s.x, s.y, names, strict=True)
        if math.isfinite(b)
    )


def _mark(x: float, y: float, i: int, inside: str = "") -> str:
    """The mark of series number i."""
    corners = CORNERS[i % len(CORNERS)]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    kind, where = (
        ("polygon", f'points="{points}"') if corners else ("circle", f'cx="{x:.1f}" cy="{y:.1f}" r="4.5"')
    )
    colour = COLOURS[i % len(COLOURS)]
    return f'<{kind} {where} fill="{colour}" fill-opacity="0.75" stroke="white">{inside}</{kind}>'


def _legend(s: Series, i: int) -> str:
    x, y = LEFT + 155 * (i % 2), HEIGHT + 10 + 16 * (i // 2)
    dash, colour = DASHES[i % len(DASHES)], COLOURS[i % len(COLOURS)]
    sample = (
        _mark(x + 14, y - 4, i)
        if s.marks
        else f'<line x1="{x}" y1="{y - 4}" x2="{x + 20}" y2="{y - 4}" stroke="{colour}" stroke-width="2.5" '
        f'stroke-dasharray="{dash}"/>'
    )
    return sample + _text(x + 25, y, s.label[:22], "start")


def unit_disc(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]] | None, title: str) -> str:
    """Eigenvalues in the complex plane: rings before, dots after quantization, red where it left the disc."""
    size, centre = 250, 125.0
    reach = max([1.0, *(math.hypot(*v) for v in (*before, *(after or ())))]) * 1.06
    unit = (centre - 4) / reach

    def at(v: Sequence[float]) -> str:
        return f'cx="{centre + unit * v[0]:.1f}" cy="{centre - unit * v[1]:.1f}"'

    parts = [
        f'<circle cx="{centre}" cy="{centre}" r="{unit:.1f}" fill="#f7f7f7" stroke="#666"/>',
        _rule(4, centre, size - 4, centre),
        _rule(centre, 4, centre, size - 4),
        *(f'<circle {at(v)} r="4" fill="none" stroke="{COLOURS[0]}"/>' for v in before),
    ]
    for v in after or ():
        outside = math.hypot(*v) > 1.0
        parts.append(f'<circle {at(v)} r="2.2" fill="{"#c00000" if outside else COLOURS[1]}"/>')
    return _svg(size, size, "".join(parts), title)


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """True classes in rows, answers in columns, shaded by the share of the row; counts in the cells."""
    n = len(counts)
    cell = min(34.0, (WIDTH - 60) / n)
    left, top = 54.0, 34.0
    parts = [_text(left + n * cell / 2, 10, "answer", "middle")]
    for i, row in enumerate(counts):
        y = top + i * cell
        parts.append(_text(left - 5, y + cell / 2 + 4, classes[i][:7], "end"))
        parts.append(_text(left + i * cell + cell / 2, top - 5, classes[i][:4], "middle"))
        for j, count in enumerate(row):
            share = count / (sum(row) or 1)
            fill = f"rgba(0,114,178,{share:.3f})" if i == j else f"rgba(213,94,0,{min(1.0, 4 * share):.3f})"
            x = left + j * cell
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" fill="{fill}" stroke="#ddd"/>'
            )
            if count:
                white = share > 0.6 if i == j else share > 0.18
                style = f' class="count" fill="{"white" if white else "#222"}"'
                parts.append(_text(x + cell / 2, y + cell / 2 + 3.5, str(count), "middle", style))
    return _svg(left + n * cell + 6, top + n * cell + 6, "".join(parts), "confusion matrix")


def histogram(counts: Sequence[int], *, reach: float, limits: bool) -> str:
    """Bars over -reach..reach on a root scale, so that tails show; lines at -1 and 1 (the ends of the grid)."""
    width, height = 150, 34
    top = math.sqrt(max([*counts, 1]))
    bar = width / len(counts)
    parts = []
    for i, count in enumerate(counts):
        h = math.sqrt(count) / top * (height - 2)
        if count:
            parts.append(f'<rect x="{i * bar:.1f}" y="{height - h:.1f}" width="{bar:.2f}" height="{h:.1f}"/>')
    for at in (-1.0, 1.0) if limits else ():
        x = (at + reach) / (2 * reach) * width
        parts.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height}" stroke="#c00000"/>')
    return _svg(width, height, f'<g fill="{COLOURS[0]}">{"".join(parts)}</g>', "histogram", kind="spark")


def _svg(width: float, height: float, body: str, title: str, kind: str = "chart") -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{body}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str = "#ddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
