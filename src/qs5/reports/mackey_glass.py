"""The Mackey-Glass study: error against delay under the four panels of figure 2, from records, as points and as tables.

Records come from `python -m benchmarks.mackey_glass`: task mackey_glass or mackey_glass-ahead, with panel, bits (None:
float), tau, recipe, epochs and curves in `extra`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from qs5.reports.results import Result
from qs5.reports.tables import markdown

DELAYED, AHEAD = "mackey_glass", "mackey_glass-ahead"
BITS = (8, 4, 2, 1)
CURVES: tuple[tuple[str, int | None], ...] = (("float", None), *((p, b) for p in "abcd" for b in BITS))
"""(panel, bits) of every curve of figure 2."""
COMMAND = "python -m benchmarks.mackey_glass run"
READ_BY_EYE = 2.0
"""How far off a number may be that was read off the paper's figure, sMAPE."""

Cell = tuple[str, int | None, float]
"""Panel ("float" for all), bits, delay."""


class Schedule(NamedTuple):
    """How long models were trained."""

    recipe: str
    epochs: int


class Point(NamedTuple):
    """sMAPE over the seeds of one panel ("float" for all), bits (None: float) and delay."""

    panel: str
    bits: int | None
    tau: float
    values: tuple[float, ...]
    """Of the runs that gave a number."""
    diverged: int = 0
    """Runs that gave none."""
    printed: tuple[float, ...] = ()
    """The sMAPE of the same runs as the paper prints it (a running mean, averaged)."""


def points_of(
    results: Sequence[Result], *, task: str = DELAYED, schedule: Schedule | None = None
) -> list[Point]:
    """The recorded runs of a task, those of one schedule: the given one, or what most runs have.

    A seed that was run twice counts once, the later run.
    """
    ours = _of(results, task)
    schedule = schedule or schedule_of(results)
    found: dict[Cell, dict[int, Result]] = {}
    for r in ours:
        if _schedule(r) == schedule:
            found.setdefault(_cell(r), {})[r.seed] = r
    keys = sorted(found, key=lambda k: (k[0], k[1] or 0, k[2]))
    return [_point(key, list(found[key].values())) for key in keys]


def schedule_of(results: Sequence[Result]) -> Schedule | None:
    """The schedule that most Mackey-Glass runs have; None without runs."""
    counts = Counter(_schedule(r) for task in (DELAYED, AHEAD) for r in _of(results, task))
    return max(counts, key=lambda s: counts[s]) if counts else None


def _of(results: Sequence[Result], task: str) -> list[Result]:
    return [r for r in results if r.task == task and "tau" in r.extra]


def _schedule(r: Result) -> Schedule:
    return Schedule(str(r.extra.get("recipe", "")), int(r.extra.get("epochs") or 0))


def _cell(r: Result) -> Cell:
    bits = r.extra.get("bits")
    return "float" if bits is None else str(r.extra.get("panel")), bits, float(r.extra["tau"])


def _point(cell: Cell, runs: Sequence[Result]) -> Point:
    good = [r for r in runs if math.isfinite(r.value)]
    printed = tuple(r.extra["smape_running"] for r in good if "smape_running" in r.extra)
    return Point(*cell, tuple(r.value for r in good), len(runs) - len(good), printed)


def name_of(panel: str, bits: int | None) -> str:
    """The name of a curve: `float`, `a 8`."""
    return "float" if bits is None else f"{panel} {bits}"


# ---- tables ----


def render(results: Sequence[Result], paper: Mapping[str, Any]) -> str:
    """The Markdown page of the study. paper: the table `figure2` of paper.toml."""
    schedule = schedule_of(results)
    if schedule is None:
        return f"# Mackey-Glass\n\nNothing was run yet: `{COMMAND}`.\n"
    delayed = points_of(results, task=DELAYED, schedule=schedule)
    ahead = points_of(results, task=AHEAD, schedule=schedule)
    taus = tuple(float(t) for t in paper["tau"])
    theirs = {curve: dict(zip(taus, values, strict=True)) for curve, values in paper["curves"].items()}
    parts = [
        _introduction(schedule),
        "## Figure 2: ten delayed channels, sMAPE as the paper's code has it\n\n",
        _table(delayed, taus, _baselines(_of(results, DELAYED)), theirs),
        _within(delayed, theirs),
        "\n## The same runs, sMAPE as the paper prints it\n\n",
        "A running mean over the steps so far, averaged over steps.\n\n",
        _table([p._replace(values=p.printed) for p in delayed], taus, {}, {}),
        "\n## Without the leak: one channel, no input shows a target (`--form ahead`)\n\n",
        _table(ahead, taus, _baselines(_of(results, AHEAD)), {}) if ahead else f"Not run: `{COMMAND} --form ahead`.\n",
        "\n## Have the curves flattened?\n\n",
        _flattened(_of(results, DELAYED), schedule),
        _longer(_of(results, DELAYED), schedule),
    ]  # fmt: skip
    return "".join(parts)


def _introduction(schedule: Schedule) -> str:
    return (
        "# Mackey-Glass: test sMAPE of the 624-parameter model against the delay\n\n"
        "0 is right, 200 the worst. A cell is the mean over seeds, with the lowest and the highest; a seed is one of "
        "the data, of the initialisation and of the order of the batches. Every run was selected on validation "
        f"series of its own. Recipe {schedule.recipe}, {schedule.epochs} epochs. Panels: a quantizes A, B, C, D and "
        "the SSM's activations, b A alone, c all but A, d the SSM's activations alone; all from scratch, with the "
        "paper's dynamic scales in the parallel scan (schedule=parallel, range_rule=aqt, quantized_backward=true). "
        f"`paper` is read off its figure by eye, +-{READ_BY_EYE:g}. Records: mackey_glass.jsonl; made by "
        "`python -m benchmarks.mackey_glass`.\n\n"
        "`constant` is the error of the best constant of each channel, learnt from nothing; `copy` is that of "
        "repeating what the inputs show of the targets already, and that constant elsewhere.\n\n"
    )


def _baselines(runs: Sequence[Result]) -> dict[str, dict[float, float]]:
    """Mean over seeds of what needs no training, by delay."""
    found: dict[str, dict[float, dict[int, float]]] = {}
    for r in runs:
        for name in ("constant", "copy"):
            if name in r.extra:
                by_tau = found.setdefault(name, {}).setdefault(float(r.extra["tau"]), {})
                by_tau[r.seed] = r.extra[name]
    return {
        name: {tau: float(np.mean(list(seeds.values()))) for tau, seeds in taus.items()}
        for name, taus in found.items()
    }


def _table(
    points: Sequence[Point],
    taus: Sequence[float],
    baselines: Mapping[str, Mapping[float, float]],
    theirs: Mapping[str, Mapping[float, float]],
) -> str:
    by_cell = {(p.panel, p.bits, p.tau): p for p in points}
    rows = [_numbers(name, values, taus) for name, values in baselines.items()]
    for panel, bits in CURVES:
        name, found = name_of(panel, bits), [by_cell.get((panel, bits, tau)) for tau in taus]
        rows.append([name, _seeds(found), *map(_text, found)])
        if name in theirs:
            rows.append(_numbers(f"{name}, paper", theirs[name], taus))
    return markdown(("curve", "runs", *(f"tau {t:g}" for t in taus)), rows)


def _numbers(name: str, values: Mapping[float, float], taus: Sequence[float]) -> list[str]:
    return [name, "", *(f"{values[t]:.1f}" if t in values else "-" for t in taus)]


def _seeds(points: Sequence[Point | None]) -> str:
    counts = [len(p.values) + p.diverged if p else 0 for p in points]
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"


def _text(p: Point | None) -> str:
    if p is None:
        return "not run"
    if not p.values:
        return "diverged"
    text = f"{np.mean(p.values):.1f}"
    if len(p.values) > 1:
        text += f" ({min(p.values):.1f}-{max(p.values):.1f})"
    return text + (f", {p.diverged} diverged" if p.diverged else "")


def _within(points: Sequence[Point], theirs: Mapping[str, Mapping[float, float]]) -> str:
    """How the paper's float curve lies to ours."""
    curve = [p for p in points if p.bits is None and p.values and p.tau in theirs.get("float", {})]
    if not curve:
        return ""
    sides: dict[str, list[str]] = {"inside": [], "above": [], "below": []}
    for p in curve:
        value = theirs["float"][p.tau]
        low, high = min(p.values) - READ_BY_EYE, max(p.values) + READ_BY_EYE
        sides["above" if value > high else "below" if value < low else "inside"].append(f"{p.tau:g}")
    said = "; ".join(f"{side} at tau {', '.join(taus)}" for side, taus in sides.items() if taus)
    return f"\nThe paper's float error against the spread of ours, widened by {READ_BY_EYE:g}: {said}.\n"


def _flattened(runs: Sequence[Result], schedule: Schedule) -> str:
    """Validation error along training, mean over the delays and seeds of each curve."""
    marks = [max(1, round(schedule.epochs * part)) for part in (0.25, 0.5, 0.75, 0.9, 1.0)]
    rows = []
    for panel, bits in CURVES:
        curves = [
            r.extra["curves"]["validation"]
            for r in runs
            if _schedule(r) == schedule and _cell(r)[:2] == (panel, bits) and "curves" in r.extra
        ]
        curves = [c for c in curves if np.isfinite(c).all()]
        if curves:
            mean = np.mean(curves, axis=0)
            rows.append([name_of(panel, bits), *(f"{mean[m - 1]:.2f}" for m in marks)])
    if not rows:
        return "No curves were recorded.\n"
    return "Validation sMAPE after so many epochs, mean over delays and seeds.\n\n" + markdown(
        ("curve", *(f"epoch {m}" for m in marks)), rows
    )


def _longer(runs: Sequence[Result], schedule: Schedule) -> str:
    """The same models on other schedules, where there are some."""
    short = {(_cell(r), r.seed): r.value for r in runs if _schedule(r) == schedule}
    other: dict[tuple[Schedule, str], list[tuple[float, float]]] = {}
    for r in runs:
        key = (_cell(r), r.seed)
        if _schedule(r) != schedule and key in short:
            curve = name_of(*_cell(r)[:2])
            other.setdefault((_schedule(r), curve), []).append((short[key], r.value))
    if not other:
        return ""
    rows = [
        [curve, s.recipe, str(s.epochs), str(len(pairs)), *(f"{v:.2f}" for v in np.mean(pairs, axis=0))]
        for (s, curve), pairs in sorted(other.items())
    ]
    header = ("curve", "recipe", "epochs", "runs", "test sMAPE of the study", "of this schedule")
    return "\nThe same models trained on other schedules.\n\n" + markdown(header, rows)
