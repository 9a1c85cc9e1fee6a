"""`make bench`: measure, print, and write results/bench/training_step.{md,json}. Leave the machine alone meanwhile."""

import argparse
import json
from pathlib import Path

from qs5.cli.malloc import tune_malloc

RESULTS = Path(__file__).resolve().parents[1] / "results" / "bench"


def main() -> None:
    """Run all benchmarks with the command line's allocator settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    tune_malloc()
    from benchmarks import training_step  # after the allocator is tuned: this imports JAX
    from qs5.files import write_beside
    from qs5.reports.tables import markdown
    from qs5.training import record

    timings = training_step.measure(rounds)
    rows = [
        (name, f"{1000 * t.seconds:.0f}", f"{t.ratio:.2f}", f"{t.low:.2f} to {t.high:.2f}")
        for name, t in timings.items()
    ]
    table = markdown(("training step", "median ms", "x float step", "quartiles"), rows)
    facts = {
        "machine": record.machine(),
        "commit": record.commit(),
        "rounds": rounds,
        "command": f"python -m benchmarks --rounds {rounds}",
    }
    header = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    about = (
        "Loss and gradient of the paper's sMNIST model (4 layers, H = 96, P = 128, batch norm, batch 50, "
        "784 steps), all variants interleaved in one process, tuned malloc; ratios are medians over rounds."
    )
    text = f"# Training step\n\n{about}\n\n{header}\n\n{table}"
    write_beside(RESULTS / "training_step.md", text.encode())
    results = {**facts, "timings": {name: t._asdict() for name, t in timings.items()}}
    write_beside(RESULTS / "training_step.json", (json.dumps(results, indent=1) + "\n").encode())
    print(text)


if __name__ == "__main__":
    main()
