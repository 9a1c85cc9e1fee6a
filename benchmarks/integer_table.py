"""sMNIST as integer models, by post-training quantization alone: accuracy in the engine, and bytes of the file.

    python -m benchmarks.integer_table [--specs W8A8Abar16 W8A8 ...]

Every row: calibrate the zoo's smnist-float on the 512 embedded training images, lower, run the native engine (or the
reference where it was not built) on all 10,000 test images.
Records go to results/integer.jsonl, the table to results/integer.md.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from qs5.cli.malloc import tune_malloc

RESULTS = Path(__file__).resolve().parents[1] / "results"
RECORDS = RESULTS / "integer.jsonl"
PARENT = "smnist-float"
SPECS = (
    "W8A8Abar16",
    "W8A8Abar16,a=8",
    "W8A8Abar16,state=8",
    "W8A8Abar16,state=12",
    "W8A8Abar16,b=4,c=4,dense=4",
    "W8A8Abar16,b=4,c=4,dense=4,a=8",
    "W8A8Abar16,b=2,c=2,dense=2",
)


def main() -> None:
    """Parse, run the rows, show the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--specs", nargs="*", default=SPECS)
    args = parser.parse_args()
    tune_malloc()
    for text in args.specs:
        print(_row(text), flush=True)
    _show()


def _row(text: str) -> str:
    """One spec: quantize, lower, run, append."""
    from qs5 import integer
    from qs5.cli import common
    from qs5.cli.lower import lowered_run
    from qs5.integer.file import to_bytes
    from qs5.integer.whole import cross_entropy
    from qs5.lowering.lower import DEFAULT_MAX_LENGTH
    from qs5.quantization.spec import spec_of
    from qs5.search.measure import judge
    from qs5.training import methods, record

    model, info = common.open_run(PARENT)
    task = common.load_for_judging(info.recipe, None, "test")
    with tempfile.TemporaryDirectory() as folder:
        quantized = methods.ptq(
            model,
            task,
            spec_of(f"{text},rounding=nearest"),
            parent=info,
            name=PARENT,
            out=Path(folder) / "ptq",
        )
    lowered = lowered_run(
        quantized.model, quantized.info, task, f"{PARENT} {text}", max_length=DEFAULT_MAX_LENGTH
    )
    judged = judge(lowered, task, task.test)
    result = record.RunRecord(
        task=task.name,
        data=task.identity,
        method="ptq, integer engine",
        spec=text,
        seed=info.recipe.train.seed,
        split="test",
        metric=task.metric,
        value=judged.metric,
        loss=cross_entropy(judged.outputs, task.test.y),
        n=len(task.test),
        selection="none",
        seconds=judged.seconds,
        extra={
            "parent": PARENT,
            "rounding": "nearest",
            "backend": integer.chosen("auto"),
            "widths": lowered.description.widths,
            "bytes": len(to_bytes(lowered)),
            "fp32_bytes": 4 * model.parameter_count,
        },
    )
    record.append(RECORDS, result)
    return f"{text}: {100 * judged.metric:.2f} %, {result.extra['bytes']} bytes"


def _show() -> None:
    from qs5.files import write_beside
    from qs5.reports.tables import markdown, percent
    from qs5.training import record

    newest: dict[str, dict[str, Any]] = {r["spec"]: r for r in record.read(RECORDS)}
    rows = [
        (
            text,
            r["extra"]["widths"],
            percent(r["value"]),
            str(r["extra"]["bytes"]),
            f"{r['extra']['fp32_bytes'] / r['extra']['bytes']:.2f}",
        )
        for text, r in newest.items()
    ]
    header = ("spec", "bits", "test accuracy, integer engine", "bytes of the file", "times smaller than fp32")
    text = (
        "# sMNIST as integer models, by post-training quantization alone\n\n"
        f"Parent: the zoo's {PARENT}. All 10,000 test images. Weights rounded to nearest. "
        "Records: integer.jsonl; made by `python -m benchmarks.integer_table`.\n\n" + markdown(header, rows)
    )
    write_beside(RESULTS / "integer.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
