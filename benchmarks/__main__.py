"""`python -m benchmarks [GROUP ...]`: training steps; writes results/bench/training_step.{md,json}.

Groups: training (float, paper size), sizes (half size), norms (layer, batch, bidirectional), qat (over float),
qat-jax (QAT without native kernels), paper (QAT the paper's way); without a name all of them. A group that is measured
replaces its part of the results, the others stay. Needs the native kernels, and a C compiler for the float32 peak.
Leave the machine alone meanwhile.
"""

import argparse
import subprocess
from pathlib import Path
from typing import Any

from qs5.cli.malloc import tune_malloc
from qs5.errors import UserError

RESULTS = Path(__file__).resolve().parents[1] / "results" / "bench"
GROUPS = ("training", "sizes", "norms", "qat", "qat-jax", "paper")
LEAST_ROUNDS = 2
"""Quartiles need two."""


def main() -> None:
    """Measure the groups asked for with the command line's allocator settings, each written as soon as it is there."""
    parser = _parser()
    args = parser.parse_args()
    if unknown := sorted(set(args.groups) - set(GROUPS)):
        parser.error(f"unknown group {', '.join(unknown)}: expected {', '.join(GROUPS)}")
    if args.rounds < LEAST_ROUNDS:
        parser.error(f"expected --rounds {LEAST_ROUNDS} or more, got {args.rounds}")
    tune_malloc()
    try:
        print(run(args.groups or list(GROUPS), rounds=args.rounds, out=args.out))
    except UserError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return parser


def run(keys: list[str], *, rounds: int, out: Path, **sizes: Any) -> str:
    """The page. sizes: of `training_groups.groups`. Raises UserError without the native kernels."""
    # After the allocator is tuned: these import JAX.
    from benchmarks import training_groups, training_page
    from qs5.kernels import native

    if not native.available():
        raise UserError(
            "expected the native kernels, got none: install a C++ compiler and qs5 again, unset QS5_NATIVE"
        )
    peak, found, text = _peak(), training_groups.groups(**sizes), ""
    for key in keys:
        entry = {**_facts(key, rounds), **training_page.measure(found[key], peak=peak, rounds=rounds)}
        text = training_page.write(training_page.merge(out, key, entry, order=list(GROUPS)), out)
        print(f"{key}: in {out / 'training_step.md'}", flush=True)
    return text


def _peak() -> Any:
    from benchmarks.float_peak import float_peak

    try:
        return float_peak()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no shares of the float32 peak: no C compiler ({error})", flush=True)
        return None


def _facts(key: str, rounds: int) -> dict[str, Any]:
    from qs5.training import record

    return {
        "machine": record.machine(),
        "commit": record.commit(),
        "rounds": rounds,
        "command": f"python -m benchmarks {key} --rounds {rounds}",
    }


if __name__ == "__main__":
    main()
