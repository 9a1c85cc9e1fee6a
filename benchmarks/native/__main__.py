"""`python -m benchmarks.native`: the integer engine beside float32 peers; writes results/bench/native_engine.{md,json}.

Needs `pip install qs5[onnx]` and a C compiler. Leave the machine alone meanwhile.
"""

import argparse
import json
from pathlib import Path

from benchmarks.native import measure
from qs5.reports.tables import markdown

RESULTS = Path(__file__).resolve().parents[2] / "results" / "bench"
GROUPS = (
    ("step in C, int8", measure.single),
    ("batch 50, int8", measure.batches),
    ("step in C, W8A8Abar16", measure.widths),
    (f"sequence, int8, {measure.levels()[-1]}", measure.other_levels),
)
ONNX_BATCH = "batch 50, step from Python, ONNX Runtime float32"
PAIRS = (
    ("step in C", "step in C, float32", "step in C, int8"),
    ("step, against ONNX Runtime called a step", "step from Python, ONNX Runtime float32", "step in C, int8"),
    ("step from Python, against ONNX Runtime", "step from Python, ONNX Runtime float32", "step from Python, int8"),
    ("sequence", "sequence, float32", "sequence, int8"),
    ("batch 50", "batch 50, float32", "batch 50, int8"),
    ("batch 50, against ONNX Runtime called a step", ONNX_BATCH, "batch 50, int8"),
    ("batch 50, both called a step", ONNX_BATCH, "batch 50, step from Python, int8"),
    ("batch 50, two threads over one", "batch 50, int8", "batch 50, int8, two threads"),
    *(
        (f"{mode}, {name} over W8A8Abar16", f"{mode}, W8A8Abar16", f"{mode}, {name}")
        for mode in ("step in C", "sequence")
        for name in list(measure.WIDTHS)[1:]
    ),
)  # fmt: skip
ABOUT = (
    "The paper's sMNIST model (4 layers, H = 96, P = 128, batch norm, half-GLU), one thread unless said. float32 is "
    "`benchmarks/native/float_engine.c`, of the same structure and tiling, -O3 -march=native. Variants of a group take "
    "turns in one process; times are medians over rounds, ratios medians of the ratios within a round. Weights of 4 "
    "and 2 bits are packed in memory for single steps on AVX-512; blocks of rows, AVX2 and plain C read 8 or 16 bits."
)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    times: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for reference, group in GROUPS:
        found = measure.time(group(), reference=reference, rounds=rounds)
        times |= {name: seconds for name, (seconds, _) in found.items()}
        ratios |= {name: ratio for name, (_, ratio) in found.items()}
    share = ratios[measure.PEAK] / ratios["sequence, int8"] if measure.PEAK in ratios else None
    gains = {title: ratios[slow] / ratios[fast] for title, slow, fast in PAIRS}
    write(times, gains, share, rounds)


def write(times: dict[str, float], gains: dict[str, float], share: float | None, rounds: int) -> None:
    """The table and the JSON."""
    from qs5.files import write_beside
    from qs5.training import record

    facts = {"machine": record.machine(), "commit": record.commit(), "rounds": rounds}
    facts |= {"command": f"python -m benchmarks.native --rounds {rounds}"}
    if share is not None:
        facts |= {"products of a sequence, share of the measured int8 peak": round(share, 3)}
    header = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    speeds = markdown(("variant", "us a token"), [(name, f"{t:.2f}") for name, t in times.items()])
    faster = markdown(("int8 over", "times faster"), [(name, f"{r:.2f}") for name, r in gains.items()])
    text = f"# The integer engine\n\n{ABOUT}\n\n{header}\n\n{speeds}\n{faster}"
    write_beside(RESULTS / "native_engine.md", text.encode())
    results = {**facts, "microseconds": times, "ratios": gains}
    write_beside(RESULTS / "native_engine.json", (json.dumps(results, indent=1) + "\n").encode())
    print(text)


if __name__ == "__main__":
    main()
