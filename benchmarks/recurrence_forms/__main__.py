"""Every form of Lambda-bar on trained models: error of the layers' outputs, and accuracy, against stored bits.

    python -m benchmarks.recurrence_forms run --data-dir DATA [--models smnist-float smnist-float-ln]
    python -m benchmarks.recurrence_forms show

Only Lambda-bar is coded, after training; everything else is float. Accuracy is over the first 3,000 images of the
validation split: the study chooses a form, so it may not look at the test split. A finished cell is not run again.
Records: results/recurrence_forms.jsonl; table and figure: results/recurrence_forms.md, .svg, .png, and .csv with its
points (the figure needs matplotlib: pip install 'qs5[figures]').
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.recurrence_forms.forms import FORMS, response_error
from qs5.cli.malloc import tune_malloc
from qs5.model.arithmetic import FloatArithmetic, Signal
from qs5.model.discretize import Complex

RESULTS = Path(__file__).resolve().parents[2] / "results"
RECORDS = RESULTS / "recurrence_forms.jsonl"
MODELS = ("smnist-float", "smnist-float-ln")
IMAGES = 3000
FLOAT = "float"


@dataclass(frozen=True, eq=False)
class Recoded(FloatArithmetic):
    """Float arithmetic whose Lambda-bar is given, by state site."""

    eigenvalues: dict[str, Complex] | None = None

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        given = (self.eigenvalues or {}).get(site, Lambda_bar)
        return super().recurrence(site, given, Bu, x0, reverse=reverse)


jax.tree_util.register_dataclass(Recoded, data_fields=["eigenvalues"], meta_fields=["scan"])


def main() -> None:
    """Parse, then measure or show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "show"))
    parser.add_argument("--models", nargs="+", default=MODELS, help="zoo models or float runs")
    parser.add_argument("--data-dir", help="where MNIST's training files are, else $QS5_DATA")
    args = parser.parse_args()
    tune_malloc()
    if args.what == "run":
        for name in args.models:
            _measure(name, args.data_dir)
    _show()


def _measure(name: str, data_dir: str | None) -> None:
    from qs5.cli import common
    from qs5.quantization.modes import eigenvalues

    model, info = common.open_run(name)
    task = common.load_task(info.recipe, data_dir)
    split = task.validation.take(np.arange(IMAGES))
    own = [eigenvalues(layer.ssm, model.config) for layer in model.layers]
    # A mode whose modulus reaches 1 has no impulse response to compare: the coders see it just inside.
    own = [z / np.maximum(1.0, np.abs(z) / (1 - 2.0**-14)) for z in own]
    weights = [_weight(layer.ssm) for layer in model.layers]
    cells = [(FLOAT, 0)] + [(form, n) for form, (_, widths) in FORMS.items() for n in widths]
    for form, n in cells:
        if not _done(name, form, n):
            decoded = own if form == FLOAT else [FORMS[form][0](z, n)[0] for z in own]
            stored = 0.0 if form == FLOAT else FORMS[form][0](own[0], n)[1]
            errors = [response_error(*layer) for layer in zip(own, decoded, weights, strict=True)]
            sites = [f"layers.{i}.ssm.state" for i in range(len(own))]
            coded = {} if form == FLOAT else dict(zip(sites, map(_pair, decoded), strict=True))
            _judge(model, task, split, Recoded(eigenvalues=coded), info, name, form, n, stored, errors)


def _weight(ssm: Any) -> np.ndarray:
    """|C_p|^2 |B_p|^2 of each mode of the forward scan."""
    M = len(ssm.Lambda_re)
    b = np.sum(np.square(ssm.B_re) + np.square(ssm.B_im), axis=1)
    return b * np.sum(np.square(ssm.C_re) + np.square(ssm.C_im), axis=0)[:M]


def _pair(z: np.ndarray) -> Complex:
    return Complex(jnp.asarray(np.real(z), jnp.float32), jnp.asarray(np.imag(z), jnp.float32))


def _judge(model: Any, task: Any, split: Any, arithmetic: Recoded, info: Any, name: str, form: str, n: int,
           stored: float, errors: list[float]) -> None:  # fmt: skip
    from qs5.training import record
    from qs5.training.evaluate import evaluate

    started = time.monotonic()
    result = evaluate(model, split, task=task, arithmetic=arithmetic)
    finite = bool(np.isfinite(result.loss))
    unstable = sum(not np.isfinite(e) for e in errors)
    record.append(
        RECORDS,
        record.RunRecord(
            task=task.name,
            data=split.identity,
            method="ptq of Lambda-bar alone",
            spec=f"{form} {n}",
            seed=info.recipe.train.seed,
            split="validation",
            metric=task.metric,
            value=result.metric,
            loss=result.loss if finite else float("nan"),
            n=len(split),
            selection="none",
            seconds=time.monotonic() - started,
            extra={
                "model": name,
                "form": form,
                "width": n,
                "bits_a_mode": stored,
                "unstable_layers": unstable,
                "response_error": None if unstable else float(np.mean(errors)),
            },
        ),
    )
    print(f"{name} {form} {n}: {stored:.0f} bits a mode, {100 * result.metric:.2f} %", flush=True)


def _done(name: str, form: str, n: int) -> bool:
    from qs5.training import record

    key = (name, form, n)
    return any(
        (r["extra"]["model"], r["extra"]["form"], r["extra"]["width"]) == key for r in record.read(RECORDS)
    )


def _show() -> None:
    from qs5.files import write_beside
    from qs5.reports.tables import markdown, percent
    from qs5.training import record

    records = record.read(RECORDS)
    text = (
        "# Forms of Lambda-bar on trained models\n\n"
        f"Only Lambda-bar is coded, after training. Accuracy in % on {IMAGES:,} validation images. Stored bits count "
        "everything but the codebook's table. Error: of the layers' outputs for white noise, relative, mean over "
        "layers; a dash where a mode is unstable. Records: recurrence_forms.jsonl; made by "
        "`python -m benchmarks.recurrence_forms`.\n"
    )
    for model in dict.fromkeys(r["extra"]["model"] for r in records):
        rows = [
            (e["form"], str(e["width"] or "-"), f"{e['bits_a_mode']:.0f}",
             "-" if e["response_error"] is None else f"{e['response_error']:.3f}", percent(r["value"]))
            for r in records if (e := r["extra"])["model"] == model
        ]  # fmt: skip
        header = ("form", "n", "stored bits a mode", "error", "accuracy")
        text += f"\n## {model}\n\n" + markdown(header, rows)
    write_beside(RESULTS / "recurrence_forms.md", text.encode())
    _figure(records, RESULTS)
    print(text)


def _figure(records: list[dict[str, Any]], folder: Path) -> None:
    """Accuracy against stored bits, a panel a checkpoint."""
    from qs5.errors import UserError
    from qs5.reports.figures import new_figure, save_figure

    models = list(dict.fromkeys(r["extra"]["model"] for r in records))
    try:
        figure, axes = new_figure(5.2 * max(1, len(models)), 3.8, ncols=max(1, len(models)), squeeze=False)
    except UserError as error:
        print(f"no figure: {error}")
        return
    points = [_point(r) for r in records if r["extra"]["form"] in FORMS]
    rows = sorted(points, key=lambda p: (models.index(p[0]), *p[1:]))
    for axis, model in zip(np.ravel(axes), models, strict=False):
        for (form, _), marker in zip(FORMS.items(), "osDv^P*", strict=True):
            at = [p[2:] for p in rows if p[:2] == (model, form)]
            axis.plot(*zip(*at, strict=True) if at else ((), ()), marker=marker, label=form)
        axis.set(xlabel="stored bits of Lambda-bar a mode", ylabel="accuracy (%)", title=model, xlim=(0, 40))
        axis.legend(fontsize=8)
    save_figure(folder, "recurrence_forms", figure, POINT, rows)


POINT = ("model", "form", "stored_bits_a_mode", "accuracy_percent")


def _point(record: dict[str, Any]) -> tuple[str, str, float, float]:
    """A row of the figure's data."""
    extra = record["extra"]
    return extra["model"], extra["form"], extra["bits_a_mode"], 100 * record["value"]


if __name__ == "__main__":
    main()
