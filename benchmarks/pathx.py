"""Path-X in memory: a training step of the full-scale recipe `pathx` (16,384 steps), with and without remat.

    python -m benchmarks.pathx [--batches 2 4 32] [--limit-gib 16] [--remat-only] [--budget SECONDS]

Random images: memory and time do not depend on them. Every point is a process of its own that may not take more
address space than the limit; one that fails says so in its row. Points go to results/bench/pathx.{md,json}; those
recorded before are kept unless --again.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "bench"
LENGTH, CLASSES = 16_384, 2
TIMEOUT = 1800.0
HEADER = ("batch", "remat", "peak MiB", "seconds a step", "seconds of the first, with compilation")


def main() -> None:
    """Measure what is missing, write the table."""
    args = _parser().parse_args()
    if args.point:
        batch, remat = json.loads(args.point)
        print(json.dumps(_measure(batch, remat=remat, limit=args.limit_gib, budget=args.budget)))
        return
    path = args.out / "pathx.json"
    records = json.loads(path.read_text())["points"] if path.is_file() and not args.again else {}
    for batch in args.batches:
        for remat in (True,) if args.remat_only else (True, False):
            if (key := json.dumps([batch, remat])) not in records:
                records[key] = _in_process(key, args)
                print(key, records[key], flush=True)
                write(records, args.out)
    print(write(records, args.out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4, 8, 32])
    parser.add_argument("--limit-gib", type=float, default=16.0, help="of address space")
    parser.add_argument("--remat-only", action="store_true")
    parser.add_argument(
        "--budget", type=float, default=1.0, help="seconds of timed steps (at least 1); 0: the first alone"
    )
    parser.add_argument("--again", action="store_true", help="forget the points recorded before")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--point", help=argparse.SUPPRESS)
    return parser


def _in_process(key: str, args: argparse.Namespace) -> dict[str, Any]:
    from qs5.training import record

    words = [sys.executable, "-m", "benchmarks.pathx", "--point", key]
    words += ["--limit-gib", str(args.limit_gib), "--budget", str(args.budget)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)
    facts = {"limit_gib": args.limit_gib, "commit": record.commit()}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        return {**facts, "error": last[:300]}
    return {**facts, **json.loads(done.stdout.splitlines()[-1])}


def _measure(batch: int, *, remat: bool, limit: float, budget: float) -> dict[str, Any]:
    """In this process, which the limit holds from here on."""
    size = int(limit * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    from qs5.cli.malloc import tune_malloc

    tune_malloc()
    from benchmarks.measured_step import measure, random_task
    from qs5.training.recipe import load_recipe

    recipe = load_recipe("pathx")
    config = recipe.model.replace(d_in=1, d_out=CLASSES)
    options = recipe.train.replace(batch_size=batch, remat=remat)
    task = random_task(length=LENGTH, sequences=batch, classes=CLASSES)
    return measure(config, options, task, spec=None, budget=budget, least=1)._asdict()


def write(records: dict[str, dict[str, Any]], out: Path) -> str:
    """JSON and table."""
    from qs5.files import write_beside
    from qs5.reports.tables import markdown
    from qs5.training import record

    ordered = sorted((*json.loads(key), found) for key, found in records.items())
    rows = [_row(batch, remat, found) for batch, remat, found in ordered]
    text = (
        "# Path-X: a training step of 16,384 time steps\n\n"
        "The recipe `pathx` (6 bidirectional layers, H = 128, P = 256) in float on random images; "
        "address space limited as said. "
        f"Machine: {record.machine()}. `python -m benchmarks.pathx`.\n\n"
        + markdown((*HEADER, "limit GiB"), rows)
    )
    results = {"machine": record.machine(), "points": records}
    write_beside(out / "pathx.json", (json.dumps(results, indent=1) + "\n").encode())
    write_beside(out / "pathx.md", text.encode())
    return text


def _row(batch: int, remat: bool, found: dict[str, Any]) -> tuple[str, ...]:
    name, limit = (str(batch), "yes" if remat else "no"), f"{found['limit_gib']:g}"
    if "error" in found:
        return (*name, f"failed: {found['error']}", "-", "-", limit)
    seconds = "-" if found["seconds"] is None else f"{found['seconds']:.1f}"
    return (*name, str(found["peak_mib"]), seconds, f"{found['first']:.0f}", limit)


if __name__ == "__main__":
    main()
