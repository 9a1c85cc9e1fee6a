"""The page of the peers, from what was measured: one JSON file, a group at a time."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Group, Row

HEADER = ("variant", "median ms", "x the first row", "quartiles", "tokens a second", "agreement")
MEMORY_HEADER = ("variant, one process each", "peak MiB", "MiB above the process before")
ABOUT = (
    "Variants of a table take turns in one process; times are medians over rounds, ratios medians of the ratios within "
    "a round. Before a variant is timed its outputs are compared with those of the first row (relative L2; gradients "
    "too in training): what computes something else is not timed. Re-typed peers are ours and say so."
)


@dataclasses.dataclass(frozen=True)
class Quotient:
    """A row of its own: how many times longer one variant takes than another of the same group."""

    title: str
    slow: str
    fast: str


def merge(out: Path, key: str, value: dict[str, Any]) -> dict[str, Any]:
    """peers.json with one group replaced."""
    from qs5.files import write_beside

    path = out / "peers.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    results[key] = value
    write_beside(path, (json.dumps(results, indent=1) + "\n").encode())
    return results


def entry(
    group: Group, rows: list[Row], facts: dict[str, Any], quotients: tuple[Quotient, ...]
) -> dict[str, Any]:
    """What is recorded of a group."""
    found = {row.name: row for row in rows}
    return {
        **facts,
        "title": group.title,
        "about": group.about,
        "rows": [{**row._asdict(), "timing": row.timing and row.timing._asdict()} for row in rows],
        "quotients": {q.title: _quotient(found.get(q.slow), found.get(q.fast)) for q in quotients},
    }


def _quotient(slow: Row | None, fast: Row | None) -> float | None:
    if slow is None or fast is None or slow.timing is None or fast.timing is None:
        return None
    return slow.timing.ratio / fast.timing.ratio


def write(results: dict[str, Any], out: Path, order: list[str]) -> str:
    """peers.md from all that was measured so far."""
    from qs5.files import write_beside

    sections = [
        _memory(results[key]) if key == "memory" else _timed(results[key]) for key in order if key in results
    ]
    text = "# Beside the alternatives\n\n" + ABOUT + "\n\n" + "\n".join(sections)
    write_beside(out / "peers.md", text.encode())
    return text


def _facts(entry: dict[str, Any]) -> str:
    return "\n".join(
        f"- {name}: {entry[name]}"
        for name in ("machine", "commit", "rounds", "command", "versions")
        if name in entry
    )


def _timed(entry: dict[str, Any]) -> str:
    from qs5.reports.tables import markdown

    text = f"## {entry['title']}\n\n{entry['about']}\n\n{_facts(entry)}\n\n"
    text += markdown(HEADER, [_cells(row) for row in entry["rows"]])
    known = [(title, f"{q:.2f}") for title, q in entry["quotients"].items() if q is not None]
    return text + ("\n" + markdown(("ratio", "times"), known) if known else "")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if (t := row["timing"]) is None:
        return (row["name"], "-", "-", "-", "-", row["note"])
    near = "" if row["distance"] is None else f"{row['distance']:.1g}"
    agreement = "; ".join(part for part in (near, row["note"]) if part)
    quartiles = f"{t['low']:.2f} to {t['high']:.2f}"
    speed = f"{row['tokens'] / t['seconds']:,.0f}"
    return (
        row["name"],
        f"{1000 * t['seconds']:.4g}",
        f"{t['ratio']:.2f}",
        quartiles,
        speed,
        agreement or "-",
    )


def _memory(entry: dict[str, Any]) -> str:
    from qs5.reports.tables import markdown

    rows = [_memory_cells(name, found) for name, found in entry["rows"].items()]
    return f"## {entry['title']}\n\n{entry['about']}\n\n{_facts(entry)}\n\n" + markdown(MEMORY_HEADER, rows)


def _memory_cells(name: str, found: dict[str, Any]) -> tuple[str, str, str]:
    if "error" in found:
        return name, f"not measured: {found['error']}", "-"
    return name, str(found["peak_mib"]), str(found["peak_mib"] - found["before_mib"])
