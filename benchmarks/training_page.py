"""Measure a group of training steps, and write results/bench/training_step.{md,json} from all that was measured."""

import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.float_peak import Peak
from benchmarks.interleaved import Timing, ratio, take_turns
from benchmarks.multiply_adds import multiply_adds
from benchmarks.training_groups import Group
from benchmarks.training_step import EPOCH

PEAK = "float32 peak"
ABOUT = (
    "Loss and gradient of the paper's sMNIST model on random images, with the optimizer where a row says so; rows not "
    "called native are JAX alone. The steps of a table take turns in one process, tuned malloc; times are medians over "
    "rounds, ratios medians of the ratios within a round with their quartiles. Minutes an epoch: steps alone, for "
    f"{EPOCH:,} sequences. Peak: fused float32 multiply-adds in registers in as many threads as XLA takes "
    "(`benchmarks/native/peak_float.c`), a turn in each round. Multiply-adds: of the products, forward and backward, "
    "by formula (`benchmarks/multiply_adds.py`). Floor: their time at that peak. Share: the floor over the step."
)
WARM_UPS = 2
"""A step compiles in the first; the first one after all compilations still took two to three times as long."""
Entry = dict[str, Any]


def measure(group: Group, *, peak: Peak | None, rounds: int) -> Entry:
    """What is recorded of a group. Without a peak (no C compiler) it says nothing of shares."""
    calls: dict[str, Callable[[], object]] = {
        name: step.call(batch=group.batch, length=group.length) for name, step in group.steps.items()
    }
    used = peak if group.shares else None
    times = take_turns(calls | ({PEAK: used.call} if used else {}), rounds=rounds, warm_ups=WARM_UPS)
    steps = {name: times[name] for name in group.steps}
    return {
        "title": group.title,
        "about": f"{group.about} Batch {group.batch}, {group.length} steps.",
        "timings": _timings(steps),
        "seconds_of_rounds": times,
        "minutes_per_epoch": {
            name: EPOCH / group.batch * statistics.median(seconds) / 60 for name, seconds in steps.items()
        },
        "ratios": {
            q.title: {**ratio(times[q.over], times[q.under])._asdict(), "goal": q.goal}
            for q in group.quotients
        },
        **(_at_peak(group, used, times) if used else {}),
    }


def _timings(times: Mapping[str, list[float]]) -> Entry:
    reference = times[next(iter(times))]
    return {
        name: Timing(statistics.median(seconds), *ratio(seconds, reference))._asdict()
        for name, seconds in times.items()
    }


def _at_peak(group: Group, peak: Peak, times: Mapping[str, list[float]]) -> Entry:
    """The peak in GFLOP/s, and for every step of `shares`: multiply-adds n, floor and share.

    In a round where the peak's p multiply-adds take t_p and the step t: floor = t_p n / p, share = floor / t.
    """
    found = {}
    for name, goal in group.shares.items():
        count = multiply_adds(group.steps[name].config, batch=group.batch, length=group.length)
        floors = [t * count / peak.multiply_adds for t in times[PEAK]]
        share = ratio(floors, times[name])
        found[name] = {
            "multiply_adds": count,
            "floor_seconds": statistics.median(floors),
            **share._asdict(),
            "goal": goal,
        }
    gflops = 2e-9 * peak.multiply_adds / statistics.median(times[PEAK])
    return {"peak_gflops": gflops, "peak_threads": peak.threads, "shares": found}


def merge(out: Path, key: str, value: Entry, *, order: list[str]) -> dict[str, Entry]:
    """training_step.json with one group replaced; what is no group is dropped."""
    from qs5.files import write_beside

    path = out / "training_step.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    known[key] = value
    results = {name: known[name] for name in order if name in known}
    write_beside(path, (json.dumps(results, indent=1) + "\n").encode())
    return results


def write(results: Mapping[str, Entry], out: Path) -> str:
    """training_step.md; returns the text."""
    from qs5.files import write_beside

    sections = "\n".join(_section(entry) for entry in results.values())
    text = f"# Training step\n\n{ABOUT}\n\n{sections}"
    write_beside(out / "training_step.md", text.encode())
    return text


def _section(entry: Entry) -> str:
    facts = {name: entry[name] for name in ("machine", "commit", "rounds", "command") if name in entry}
    if "peak_gflops" in entry:
        facts["peak"] = f"{entry['peak_gflops']:.0f} GFLOP/s of float32 in {entry['peak_threads']} threads"
    header = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    tables = "\n".join(table for table in (_steps(entry), _ratios(entry), _shares(entry)) if table)
    return f"## {entry['title']}\n\n{entry['about']}\n\n{header}\n\n{tables}"


def _steps(entry: Entry) -> str:
    from qs5.reports.tables import markdown

    rows = [
        (
            name,
            f"{1000 * t['seconds']:.4g}",
            f"{t['ratio']:.2f}",
            f"{t['low']:.2f} to {t['high']:.2f}",
            f"{entry['minutes_per_epoch'][name]:.3g}",
        )
        for name, t in entry["timings"].items()
    ]
    return markdown(("training step", "median ms", "x the first row", "quartiles", "minutes an epoch"), rows)


def _ratios(entry: Entry) -> str:
    from qs5.reports.tables import markdown

    rows = [
        (title, f"{r['median']:.2f}", f"{r['low']:.2f} to {r['high']:.2f}", r["goal"])
        for title, r in entry["ratios"].items()
    ]
    return markdown(("ratio", "times", "quartiles", "goal"), rows) if rows else ""


def _shares(entry: Entry) -> str:
    from qs5.reports.tables import markdown

    rows = [
        (
            name,
            f"{s['multiply_adds'] / 1e9:.4g}",
            f"{1000 * s['floor_seconds']:.4g}",
            f"{100 * s['median']:.0f} %",
            f"{100 * s['low']:.0f} to {100 * s['high']:.0f} %",
            s["goal"],
        )
        for name, s in entry.get("shares", {}).items()
    ]
    header = ("products", "10^9 multiply-adds", "floor, ms", "share of the peak", "quartiles", "goal")
    return markdown(header, rows) if rows else ""
