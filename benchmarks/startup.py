"""`python -m benchmarks.startup`: how long until the command line answers; writes results/bench/startup.{md,json}.

Wall-clock and processor time of whole processes, medians; the first prediction of `qs5 run` is its whole life here,
since it is given one sequence of three steps. Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).resolve().parents[1] / "results" / "bench"
QS5 = (sys.executable, "-m", "qs5")
MODEL = "smnist-w8a8abar16"
SEQUENCE = "10\n200\n30\n"


class Command(NamedTuple):
    """What is started, with what standard input, and what it may take on an idle machine."""

    words: tuple[str, ...]
    text: str
    goal: float


COMMANDS = {
    "qs5 --help": Command(("--help",), "", 0.3),
    f"qs5 run {MODEL} -": Command(("run", MODEL, "-"), SEQUENCE, 0.5),
    f"qs5 run {MODEL} - --stream": Command(("run", MODEL, "-", "--stream"), SEQUENCE, 0.5),
}


class Spent(NamedTuple):
    """Seconds of a process: on the clock, and of the processor in it and its children."""

    wall: float
    processor: float


def spent(command: Command) -> Spent:
    """Start it, wait for it. Raises CalledProcessError when it fails."""
    before, begin = os.times(), time.perf_counter()
    subprocess.run((*QS5, *command.words), input=command.text, text=True, check=True, capture_output=True)
    wall, after = time.perf_counter() - begin, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Spent(wall, used)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    times = {name: [spent(command) for _ in range(args.rounds)] for name, command in COMMANDS.items()}
    print(write(times, args.rounds, args.out))


def write(times: dict[str, list[Spent]], rounds: int, out: Path) -> str:
    """The table and the JSON."""
    from qs5.files import write_beside
    from qs5.reports.tables import markdown
    from qs5.training import record

    medians = {
        name: Spent(*map(statistics.median, zip(*found, strict=True))) for name, found in times.items()
    }
    rows = [
        (name, f"{1000 * t.wall:.0f}", f"{1000 * t.processor:.0f}", f"{1000 * COMMANDS[name].goal:.0f}")
        for name, t in medians.items()
    ]
    facts = {"machine": record.machine(), "commit": record.commit(), "rounds": rounds}
    facts |= {"command": f"python -m benchmarks.startup --rounds {rounds}"}
    header = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    table = markdown(("command", "median ms", "of the processor", "goal"), rows)
    text = (
        f"# Start-up\n\nFrom the start of the process to its end, one short sequence.\n\n{header}\n\n{table}"
    )
    results = {**facts, "seconds": {name: t._asdict() for name, t in medians.items()}}
    write_beside(out / "startup.md", text.encode())
    write_beside(out / "startup.json", (json.dumps(results, indent=1) + "\n").encode())
    return text


if __name__ == "__main__":
    main()
