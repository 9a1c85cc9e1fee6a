"""What came out of a sweep: rows for one table, one line of JSON a finished cell."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qs5.files import write_beside
from qs5.quantization.spec import spec_of
from qs5.sweeps.cell import Cell, failure_of, result_of, state_of


def header_of(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Columns: method, the axes that differ or name the spec, and what was measured."""
    return ("method", *_axes(cells), "bits", "runs", "mean", "lowest", "highest", "state")


def rows_of(cells: Sequence[Cell], folder: Path) -> list[tuple[str, ...]]:
    """One row for all seeds of the same settings."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        settings = dict(cell.settings)
        key = (cell.method, *(settings.get(axis, "-") for axis in _axes(cells)), _widths(cell))
        groups.setdefault(key, []).append(cell)
    return [(*key, *_measured(group, folder)) for key, group in groups.items()]


def _axes(cells: Sequence[Cell]) -> list[str]:
    """Axes of the grid that are worth a column: seeds share a row, what all cells have is said nowhere."""
    seen: dict[str, set[str]] = {}
    for cell in cells:
        for name, value in cell.settings:
            seen.setdefault(name, set()).add(value)
    return [n for n, values in seen.items() if n == "spec" or (n != "seed" and len(values) > 1)]


def _widths(cell: Cell) -> str:
    return "float" if cell.spec is None else spec_of(cell.spec).widths()


def _measured(group: Sequence[Cell], folder: Path) -> tuple[str, ...]:
    results = [r for r in (result_of(folder / cell.name) for cell in group) if r is not None]
    values = [r["value"] for r in results if math.isfinite(r["value"])]
    runs = f"{len(results)}/{len(group)}"
    state = _state(group, folder)
    if state == "done" and len(values) < len(results):
        state = f"done, {len(results) - len(values)} diverged"
    if not values:
        return runs, "-", "-", "-", state
    percent = results[0]["metric"] == "accuracy"
    shown = [_show(f(values), percent) for f in (statistics.fmean, min, max)]
    return runs, *shown, state


def _show(value: float, percent: bool) -> str:
    return f"{100 * value:.2f} %" if percent else f"{value:.5g}"


def _state(group: Sequence[Cell], folder: Path) -> str:
    """`done`, or how many cells are not, and why the first of them failed."""
    states = [state_of(folder / cell.name) for cell in group]
    if set(states) == {"done"}:
        return "done"
    failed = [cell for cell, state in zip(group, states, strict=True) if state == "failed"]
    if failed:
        reason = (failure_of(folder / failed[0].name) or {}).get("reason", "")
        return f"{len(failed)} failed: {reason}"
    parents = [c.parent for c in group if isinstance(c.parent, Cell)]
    if any(state_of(folder / p.name) == "failed" for p in parents):
        return "its float run failed"
    return f"{states.count('waiting')} to run"


def write_records(cells: Sequence[Cell], folder: Path, path: Path) -> None:
    """The records of all finished cells of a folder as JSONL: in the order of the grid, then those of other grids."""
    grid = [cell.name for cell in cells]
    others = sorted({p.parent.name for p in folder.glob("*/records.jsonl")} - set(grid))
    found: list[dict[str, Any] | None] = [result_of(folder / name) for name in (*grid, *others)]
    lines = [json.dumps(r, sort_keys=True) + "\n" for r in found if r is not None]
    write_beside(path, "".join(lines).encode())
