"""What each part of post-training quantization gains: sMNIST, one part left out or changed at a time.

    python -m benchmarks.reconstruction run --data-dir DATA [--specs W2A8 W4A8]
    python -m benchmarks.reconstruction show

Accuracy and loss of the simulated deployable pass on the first 3,000 images of the validation split: parts are chosen
here, so the test split is left alone. Parent smnist-float, form=polar, calibration draw 0. A finished cell is not run
again. Records: results/reconstruction.jsonl; table: results/reconstruction.md.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from qs5.cli.malloc import tune_malloc
from qs5.quantization.reconstruction import ReconstructionOptions

RESULTS = Path(__file__).resolve().parents[1] / "results"
RECORDS = RESULTS / "reconstruction.jsonl"
PARENT = "smnist-float"
IMAGES = 3000
VARIANTS: dict[str, ReconstructionOptions | None] = {
    "nearest": None,
    "nearest, minmax ranges": None,
    "nearest, percentile ranges": None,
    "all": ReconstructionOptions(),
    "without B": ReconstructionOptions(B=False),
    "without C": ReconstructionOptions(C=False),
    "without dense": ReconstructionOptions(dense=False),
    "without least squares": ReconstructionOptions(least_squares=False),
    "without descent": ReconstructionOptions(descent=False),
    "pull 0.001": ReconstructionOptions(pull=0.001),
    "pull 0.1": ReconstructionOptions(pull=0.1),
    "all, minmax ranges": ReconstructionOptions(),
    "all, percentile ranges": ReconstructionOptions(),
}
"""None: every weight to its nearest code. Ranges of activations: of least square error where no other is named."""
OBSERVERS = {"minmax ranges": "minmax", "percentile ranges": "percentile"}


def main() -> None:
    """Parse, then measure or show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "show"))
    parser.add_argument("--specs", nargs="+", default=("W2A8", "W4A8"), help="presets")
    parser.add_argument("--data-dir", help="where MNIST's training files are, else $QS5_DATA")
    args = parser.parse_args()
    tune_malloc()
    if args.what == "run":
        for name in args.specs:
            _measure(name, args.data_dir)
    _show()


def _measure(name: str, data_dir: str | None) -> None:
    from qs5.cli import common
    from qs5.quantization.build import arithmetic_for_spec
    from qs5.quantization.spec import spec_of
    from qs5.training import methods, record
    from qs5.training.evaluate import evaluate

    model, info = common.open_run(PARENT)
    task = common.load_task(info.recipe, data_dir)
    split = task.validation.take(np.arange(IMAGES))
    for variant, options in VARIANTS.items():
        key = f"{name} {variant}"
        if any(r["extra"]["key"] == key for r in record.read(RECORDS)):
            continue
        rounding = "nearest" if options is None else "reconstructed"
        observer = OBSERVERS.get(variant.rpartition(", ")[2], "mse")
        spec = spec_of(f"{name},form=polar,rounding={rounding},observer={observer}")
        started = time.monotonic()
        fitted, plan = methods.fitted(model, task, spec, options=options)
        seconds = time.monotonic() - started
        arithmetic = arithmetic_for_spec(spec, fitted.config, plan)
        result = evaluate(
            fitted, split, task=task, arithmetic=arithmetic, batch_size=info.recipe.train.eval_batch_size
        )
        record.append(
            RECORDS,
            record.RunRecord(
                task=task.name,
                data=task.identity,
                method="ptq",
                spec=spec.name,
                seed=info.recipe.train.seed,
                split="validation",
                metric=task.metric,
                value=result.metric,
                loss=result.loss,
                n=result.n,
                selection="none",
                seconds=seconds,
                extra={"key": key, "preset": name, "variant": variant, "parent": PARENT},
            ),
        )
        print(f"{key}: {100 * result.metric:.2f} %, loss {result.loss:.4f}, {seconds:.0f} s", flush=True)


def _show() -> None:
    from qs5.files import write_beside
    from qs5.reports.tables import markdown
    from qs5.training import record

    found = {r["extra"]["key"]: r for r in record.read(RECORDS)}
    specs = list(dict.fromkeys(r["extra"]["preset"] for r in found.values()))

    def cell(spec: str, variant: str) -> str:
        r = found.get(f"{spec} {variant}")
        return "-" if r is None else f"{100 * r['value']:.2f} ({r['loss']:.4f})"

    rows = [(variant, *(cell(spec, variant) for spec in specs)) for variant in VARIANTS]
    text = (
        "# What the parts of the reconstruction gain\n\n"
        f"Accuracy in % (cross-entropy) on {IMAGES:,} validation images of sMNIST after PTQ of {PARENT}, form=polar, "
        "simulated deployable pass, one calibration draw. Records: reconstruction.jsonl; made by "
        "`python -m benchmarks.reconstruction run`.\n\n" + markdown(("", *specs), rows)
    )
    write_beside(RESULTS / "reconstruction.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
