"""`python -m benchmarks.peers [GROUP ...]`: qs5 beside the alternatives; writes results/bench/peers.{md,json}.

Groups: training, qat, streaming, batched, ptq, memory; without a name all of them. A group that is measured replaces
its part of the results, the others stay. The peers come with `make bench-env`; one that is not installed, or that
computes something else, has a row that says so. The first run compiles (torch.compile: minutes, kept in its cache;
AQT: minutes each time), so a run with --rounds 2 beforehand shortens the one that counts. Leave the machine alone
meanwhile.
"""

import argparse
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "bench"
GROUPS = ("training", "qat", "streaming", "batched", "ptq", "memory")
PACKAGES = ("jax", "torch", "s5-pytorch", "onnxruntime", "aqtp")
MEMORY_TIMEOUT = 900.0


def main() -> None:
    """Measure the groups asked for, each written as soon as it is there."""
    args = _parser().parse_args()
    from qs5.cli.malloc import tune_malloc

    tune_malloc()
    if args.memory_of:
        print(json.dumps(_memory_here(*args.memory_of)))
        return
    from benchmarks.peers import page

    for key in args.groups or GROUPS:
        results = page.merge(args.out, key, _memory_entry() if key == "memory" else _timed_entry(key, args))
        page.write(results, args.out, list(GROUPS))
        print(f"{key}: in {args.out / 'peers.md'}", flush=True)
    print((args.out / "peers.md").read_text())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    return parser


def _group(key: str) -> Any:
    from benchmarks.peers import inference, ptq, training

    subject = inference.Subject()
    made = {
        "training": training.float_group,
        "qat": training.qat_group,
        "streaming": lambda: inference.streaming_group(subject),
        "batched": lambda: inference.batched_group(subject),
        "ptq": lambda: ptq.group(subject),
    }
    return made[key]()


def _quotients(key: str) -> tuple[Any, ...]:
    from benchmarks.peers import training as t
    from benchmarks.peers.page import Quotient

    ours = "qs5 QAT W8A8, native kernels"
    return {
        "qat": (
            Quotient("AQT over qs5's QAT at W8A8", t.AQT, ours),
            Quotient("the paper's way in qs5 over qs5's QAT at W8A8", t.PAPER_WAY, ours),
            Quotient("QAT over float, qs5 at W8A8", ours, t.QS5_FLOAT),
            Quotient("QAT over float, AQT", t.AQT, t.AQT_FLOAT),
        ),
    }.get(key, ())


def _timed_entry(key: str, args: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.peers import page, peer

    group = _group(key)
    rows = peer.measure(group, rounds=max(args.rounds, 2))
    return page.entry(group, rows, _facts(key, args.rounds), _quotients(key))


def _facts(key: str, rounds: int | None) -> dict[str, Any]:
    from qs5.training import record

    command = f"python -m benchmarks.peers {key}" + (f" --rounds {rounds}" if rounds else "")
    facts = {
        "machine": record.machine(),
        "commit": record.commit(),
        "command": command,
        "versions": _versions(),
    }
    return facts | ({"rounds": rounds} if rounds else {})


def _versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


# -- memory ------------------------------------------------------------------------------------------------------


def _memory_entry() -> dict[str, Any]:
    """Every variant of the training groups in a process of its own, a call each."""
    rows = {}
    for key in ("training", "qat"):
        group = _group(key)
        for name in group.variants:
            rows[f"{group.title}: {name}"] = _memory_apart(key, name)
    about = "Peak of resident memory after the first steps, XLA's or PyTorch's compilation included."
    return {**_facts("memory", None), "title": "Peak memory of a training step", "about": about, "rows": rows}


def _memory_apart(key: str, name: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.peers", "--memory-of", key, name]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=MEMORY_TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {MEMORY_TIMEOUT:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def _memory_here(key: str, name: str) -> dict[str, Any]:
    from qs5.training import record

    make = _group(key).variants[name]
    before = record.peak_mib() or 0
    make().call()
    return {"before_mib": before, "peak_mib": record.peak_mib()}


if __name__ == "__main__":
    main()
