"""sMNIST with few bits in the recurrence: polar codes of Lambda-bar, judged in the integer engine.

    python -m benchmarks.recurrent_bits run --method ptq --data-dir DATA            # three calibration draws a row
    python -m benchmarks.recurrent_bits run --method ptq --rounding nearest --data-dir DATA
    python -m benchmarks.recurrent_bits run --method ptq --form linear --data-dir DATA
    python -m benchmarks.recurrent_bits run --method qaft --data-dir DATA --specs W4A8 --seeds 0 1 2
    python -m benchmarks.recurrent_bits run --method ptq --specs W8A8,state=8 W8A4SSM8 --data-dir DATA
    python -m benchmarks.recurrent_bits show

A cell starts from the zoo's smnist-float, is quantized, lowered, and run by the native engine (or the
reference where it was not built) on all 10,000 test images. It is appended to results/recurrent_bits.jsonl at once; a
finished cell is not run again, an interrupted fine-tuning goes on from its last epoch. The table goes to
results/recurrent_bits.md.

PTQ: 512 calibration images, draw 0, 1 and 2 of the training split. QAFT: the best epoch on the validation split is
taken; eigenvalues keep the codes of the float model.
"""

import argparse
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qs5.cli.malloc import tune_malloc

if TYPE_CHECKING:
    from qs5.training.methods import Quantized

RESULTS = Path(__file__).resolve().parents[1] / "results"
RECORDS = RESULTS / "recurrent_bits.jsonl"
PARENT = "smnist-float"
FEWER = (
    "W8A8,state=12", "W8A8,state=10", "W8A8,state=8", "W8A8,act=6", "W8A4SSM8", "W8A4", "W8A2SSM8", "W8A2",
)  # fmt: skip
"""Specs with fewer bits of states and activations; the paper's state is float."""


def main() -> None:
    """Parse, then run cells or show the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "show"))
    parser.add_argument("--method", choices=("ptq", "qaft"), default="ptq")
    parser.add_argument("--specs", nargs="+", help="specs; default: the paper's seven")
    parser.add_argument("--form", choices=("polar", "linear"), default="polar", help="code of Lambda-bar")
    parser.add_argument(
        "--rounding",
        choices=("nearest", "reconstructed"),
        default="reconstructed",
        help="codes of the weights",
    )
    parser.add_argument(
        "--draws", nargs="+", type=int, default=(0, 1, 2), help="ptq: draws of calibration images"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,), help="qaft: seeds of order and dropout")
    parser.add_argument("--epochs", type=int, default=1, help="qaft")
    parser.add_argument(
        "--lr-factor", type=float, default=0.1, help="qaft: learning rates, of the float run's"
    )
    parser.add_argument("--distill", type=float, default=0.0, help="qaft: weight of the parent's logits")
    parser.add_argument(
        "--distill-layers", type=float, default=0.0, help="qaft: weight of the parent's residual streams"
    )
    parser.add_argument("--data-dir", help="where MNIST's training files are, else $QS5_DATA")
    args = parser.parse_args()
    tune_malloc()
    if args.what == "run":
        for name in args.specs or paper_values():
            for number in args.draws if args.method == "ptq" else args.seeds:
                _cell(args, name, number)
    _show()


def paper_values() -> dict[str, tuple[str, str, str]]:
    """PTQ, QAFT and QAT of the paper by spec (table 5), whose Lambda-bar has twice the named bits a mode too."""
    from qs5.quantization.spec import PAPER_TABLE
    from qs5.reports.paper_rows import printed

    def value(name: str, column: str) -> str:
        return printed("table5", name, column)

    return {name: (value(name, "ptq"), value(name, "qaft tenth"), value(name, "qat")) for name in PAPER_TABLE}


def fewer_values() -> dict[str, tuple[str, str, str]]:
    """The same for the specs of FEWER: the paper has QAT of some of them (table 3, qGELU and layer norm)."""
    from qs5.reports.paper_rows import printed

    return {name: ("-", "-", printed("table3", name, "qgelu layer")) for name in FEWER}


def _cell(args: argparse.Namespace, name: str, number: int) -> None:
    """One configuration with one draw or seed: quantize, lower, judge, append."""
    from qs5 import integer
    from qs5.cli import common
    from qs5.cli.lower import lowered_run
    from qs5.integer.file import to_bytes
    from qs5.integer.ops import Recurrence
    from qs5.integer.whole import cross_entropy
    from qs5.lowering.lower import DEFAULT_MAX_LENGTH
    from qs5.quantization.spec import spec_of
    from qs5.search.measure import judge
    from qs5.training import record

    key = _key(args, name, number)
    if any(r["extra"]["key"] == key for r in record.read(RECORDS)):
        return
    spec = spec_of(
        f"{name},form={args.form}" + (f",rounding={args.rounding}" if args.method == "ptq" else "")
    )
    model, info = common.open_run(PARENT)
    task = common.load_task(info.recipe, args.data_dir)
    started = time.monotonic()
    quantized = _quantized(args, spec, model, info, task, number, Path("runs") / key)
    seconds = time.monotonic() - started
    lowered = lowered_run(quantized.model, quantized.info, task, key, max_length=DEFAULT_MAX_LENGTH)
    judged = judge(lowered, task, task.test)
    first = next(op for op in lowered.ops if isinstance(op, Recurrence))
    result = record.RunRecord(
        task=task.name,
        data=task.identity,
        method=args.method,
        spec=spec.name,
        seed=number if args.method == "qaft" else info.recipe.train.seed,
        split="test",
        metric=task.metric,
        value=judged.metric,
        loss=cross_entropy(judged.outputs, task.test.y),
        n=len(task.test),
        selection="none" if args.method == "ptq" else "validation",
        seconds=seconds,
        extra={
            "key": key,
            "preset": name,
            "parent": PARENT,
            "backend": integer.chosen("auto"),
            "widths": lowered.description.widths,
            "bits_a_mode": 2 * (spec.a or 0),
            "operand_bits": first.bits,
            "form": args.form,
            "rounding": args.rounding if args.method == "ptq" else "nearest",
            "bytes": len(to_bytes(lowered)),
            "draw": number if args.method == "ptq" else 0,
            "epochs": args.epochs if args.method == "qaft" else 0,
            "lr_factor": args.lr_factor if args.method == "qaft" else 0.0,
            "distill": [args.distill, args.distill_layers] if args.method == "qaft" else [0.0, 0.0],
        },
    )
    record.append(RECORDS, result)
    print(f"{key}: {100 * judged.metric:.2f} %, {result.extra['bytes']} bytes, {seconds:.0f} s", flush=True)


def _key(args: argparse.Namespace, name: str, number: int) -> str:
    """What a cell is, as a name of its folder."""
    name = name.replace(",", "-").replace("=", "")
    form = "-linear" if args.form == "linear" else ""
    if args.method == "ptq":
        rounding = "-reconstructed" if args.rounding == "reconstructed" else ""
        return f"recurrent-bits-ptq-{name}{form}{rounding}-draw{number}"
    weights = (
        f"-distill{args.distill:g}+{args.distill_layers:g}" if args.distill or args.distill_layers else ""
    )
    return f"recurrent-bits-qaft-{name}{form}-e{args.epochs}-lr{args.lr_factor:g}{weights}-s{number}"


def _quantized(
    args: argparse.Namespace, spec: Any, model: Any, info: Any, task: Any, number: int, out: Path
) -> "Quantized":
    from qs5.cli import common
    from qs5.training import methods, run

    if args.method == "ptq":
        return methods.ptq(model, task, spec, parent=info, name=PARENT, out=out, draw=number)
    options = methods.qaft_options(
        info.recipe.train,
        lr_factor=args.lr_factor,
        epochs=args.epochs,
        distill=args.distill,
        distill_layers=args.distill_layers,
    )
    options = options.replace(seed=number)
    with common.training_progress(task, args.epochs) as observer:
        tuned = methods.qaft(
            model, task, spec, parent=info, name=PARENT, options=options, out=out, observer=observer
        )
    return methods.Quantized(tuned, run.read_run(out))


def _show() -> None:
    from qs5.files import write_beside
    from qs5.reports.tables import markdown, percent
    from qs5.training import record

    records = record.read(RECORDS)
    floats = [r for r in record.read(RESULTS / "smnist.jsonl") if r["method"] == "fp"]
    parent = next((r["value"] for r in reversed(floats) if r["extra"]["parent"] == PARENT), None)

    def rows(specs: Mapping[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
        return [
            _row(name, paper, [r for r in records if r["extra"]["preset"] == name])
            for name, paper in specs.items()
        ]

    header = (
        "spec", "bits", "stored bits of Lambda-bar a mode", "paper: PTQ / QAFT / QAT", "PTQ, linear, reconstructed",
        "PTQ, polar, nearest", "PTQ, polar, reconstructed", "QAFT, polar", "of epochs", "bytes of the file, polar",
    )  # fmt: skip
    text = (
        "# sMNIST with few bits in the recurrence\n\n"
        f"Accuracy in % on all 10,000 test images, in the integer engine. Float parent {PARENT}: {percent(parent)}. "
        "linear: Lambda-bar's real and imaginary part on one grid, as in the paper. polar: decay and angle "
        "(integer/SPEC.md 4.16), no tables. nearest: every weight rounded by itself. reconstructed: matrices that "
        "answer as the float ones do (quantization/reconstruction.py), no training; QAFT starts from the float "
        "weights. Polar codes decode to 16-bit operands, the widest of a model, beside the 16-bit state. A cell: "
        "number of calibration draws (PTQ) or seeds (QAFT): mean (worst). "
        "Records with command, seed, commit and machine: recurrent_bits.jsonl; made by "
        "`python -m benchmarks.recurrent_bits`.\n\n"
        f"{markdown(header, rows(paper_values()))}\n\n"
        "## Fewer bits in states and activations\n\n"
        "As above; the recurrence has 8 + 8 bits a mode and the weights 8. An 8-bit state that keeps what rounding "
        "loses (error feedback) in 8 further bits is nearly the state of 16 bits in two halves, in 4 bits that of "
        "12.\n\n"
        f"{markdown(header, rows(fewer_values()))}"
    )
    write_beside(RESULTS / "recurrent_bits.md", text.encode())
    print(text)


def _row(name: str, paper: tuple[str, ...], records: list[dict[str, Any]]) -> tuple[str, ...]:
    from qs5.quantization.spec import spec_of

    spec = spec_of(f"{name},form=polar")
    polar = [r for r in records if _form(r) == "polar"]
    tuned = _setting([r for r in polar if (r["method"], _rounding(r)) == ("qaft", "nearest")])
    return (
        name,
        spec.widths(),
        str(2 * (spec.a or 0)),
        " / ".join(paper),
        _spread(_ptq(records, "linear", "reconstructed")),
        _spread(_ptq(records, "polar", "nearest")),
        _spread(_ptq(records, "polar", "reconstructed")),
        _spread(r["value"] for r in tuned),
        str(tuned[0]["extra"]["epochs"]) if tuned else "-",
        str(polar[-1]["extra"]["bytes"]) if polar else "-",
    )


def _form(record: dict[str, Any]) -> str:
    """Records from before there was a choice are polar."""
    return record["extra"].get("form", "polar")


def _rounding(record: dict[str, Any]) -> str:
    """Records from before there was a choice are rounded to nearest."""
    return record["extra"].get("rounding", "nearest")


def _ptq(records: list[dict[str, Any]], form: str, rounding: str) -> list[float]:
    return [r["value"] for r in records if (r["method"], _form(r), _rounding(r)) == ("ptq", form, rounding)]


def _setting(tuned: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fine-tunings of one setting, never of several: the longest, and of those the one run last."""
    if not tuned:
        return []

    def setting(r: dict[str, Any]) -> tuple[Any, ...]:
        return r["extra"]["epochs"], r["extra"]["lr_factor"], r["extra"].get("distill", [0.0, 0.0])

    last = max(enumerate(tuned), key=lambda item: (item[1]["extra"]["epochs"], item[0]))[1]
    return [r for r in tuned if setting(r) == setting(last)]


def _spread(values: Iterable[float]) -> str:
    """count: mean (worst)."""
    found = [100 * v for v in values]
    if not found:
        return "-"
    return f"{len(found)}: {sum(found) / len(found):.2f} ({min(found):.2f})"


if __name__ == "__main__":
    main()
