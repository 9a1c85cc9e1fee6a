"""`qs5 bench mcu MODEL`: what an integer model costs on emulated microcontrollers."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qs5 import integer, tasks
from qs5.backends.mcu import CORES
from qs5.cli.golden import noise
from qs5.errors import UserError
from qs5.files import write_beside
from qs5.integer.model import IntegerModel
from qs5.reports.tables import markdown
from qs5.tasks import Split

NOISE_STEPS = 128
HEADER = ("core", "flash", "static RAM", "stack", "instructions a step", "per multiply-accumulate")


def run(argv: list[str]) -> int:
    """Parse, build, run in QEMU, print; every answer is compared with the reference."""
    args = _parser().parse_args(argv)
    if args.sequences < 1:
        raise UserError(f"expected --sequences at least 1, got {args.sequences}")
    model = integer.load(args.model)
    sequences = _sequences(model, args.sequences, args.data_dir)
    from qs5.cli.bench_mcu import cost_table, table_text

    with tempfile.TemporaryDirectory() as folder:
        rows = cost_table(model, sequences, folder=Path(folder), cores=args.cores)
    print(table_text(rows))
    print(f"every logit of {args.sequences} sequences equals the reference's on every core")
    if args.out is not None:
        cells = [
            (
                r.core.title,
                str(r.flash_bytes),
                str(r.ram_bytes),
                str(r.stack_bytes),
                f"{r.step_instructions:.0f}",
                f"{r.instructions_per_mac:.2f}",
            )
            for r in rows
        ]
        text = (
            f"# {args.model} on emulated microcontrollers\n\n"
            f"`qs5 bench mcu {args.model} --sequences {args.sequences}`; SHA-256 of the model's content "
            f"{integer.content_hash(model)}. Bytes; instructions as QEMU counts them, never cycles or time; "
            f"{rows[0].step_macs} multiply-accumulates a step. Every logit equals the reference's.\n\n"
            + markdown(HEADER, cells)
        )
        write_beside(args.out, text.encode())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qs5 bench", description="measure an integer model; mcu: on emulated microcontrollers (QEMU)"
    )
    parser.add_argument("target", choices=("mcu",))
    parser.add_argument("model", help="a .qs5 file, a folder that holds model.qs5, or a zoo model")
    parser.add_argument("--sequences", type=int, default=1, help="how many sequences to run and compare")
    parser.add_argument("--data-dir", help="where the task's recordings are, for fsdd (else $QS5_DATA)")
    parser.add_argument("--cores", nargs="+", choices=tuple(CORES), default=tuple(CORES))
    parser.add_argument("--out", type=Path, help="write the table as Markdown, too")
    return parser


def _sequences(model: IntegerModel, count: int, data_dir: str | None) -> list[np.ndarray]:
    """Test sequences of a model of `smnist` or `fsdd`, else noise (`golden.noise`)."""
    if model.description.task in TEST_DATA:
        test = TEST_DATA[model.description.task](data_dir)
        lengths = [test.x.shape[1]] * len(test) if test.lengths is None else test.lengths
        return [x[:n].astype(np.int64) for x, n in zip(test.x[:count], lengths[:count], strict=True)]
    return noise(model, (NOISE_STEPS,) * count)


TEST_DATA: dict[str, Callable[[str | None], Split]] = {
    "smnist": lambda _: tasks.load("smnist", parts="embedded").test,
    "fsdd": lambda data_dir: tasks.load("fsdd", data_dir=data_dir).test,
}
"""By task: the test split, as its integer models read it."""
