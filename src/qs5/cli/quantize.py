"""`qs5 quantize RUN`: post-training quantization, fine-tuning, or quantized training from scratch."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from qs5.cli import common
from qs5.errors import UserError
from qs5.model.config import Gate, Gelu
from qs5.model.network import S5Model
from qs5.quantization.spec import QuantSpec, spec_of
from qs5.tasks import Task
from qs5.training import methods
from qs5.training.run import RunInfo


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Quantize a trained float run."""

    method: Literal["ptq", "qaft", "qat"] = "ptq"
    """ptq: calibrate only. qaft: fine-tune. qat: train from scratch with the run's recipe."""
    spec: str = "W8A8Abar16"
    """A preset (`qs5 list`), a file ending in .toml (`qs5 search` writes one), or a=16,b=8,c=8,d=8,dense=8,ssm_act=8,
    act=8,state=16,residual=16. A preset or file may be followed by changes and by rules for single sites (`qs5 inspect`
    lists them): W8A8,schedule=parallel,range_rule=aqt or W4A8,layers.0.ssm.y.C=6."""
    out: Path | None = None
    """Folder of the quantized run (default: RUN-METHOD-SPEC under runs/)."""
    data_dir: str | None = None
    """Where the data sets are (else $QS5_DATA)."""
    gelu: Gelu | None = None
    """Put another GELU into the network first (qgelu: the paper's)."""
    gate: Gate | None = None
    """Put another gate into the network first (hard_sigmoid: the paper's)."""
    lr_factor: float = 0.01
    """qaft: learning rates as a fraction of the run's."""
    epochs: int | None = None
    """qaft: epochs (default 10 % of the run's); qat: epochs (default the run's)."""
    distill: float = 0.0
    """qaft: weight of the divergence from the float run's logits in the loss."""
    distill_layers: float = 0.0
    """qaft: weight of the relative error of the residual streams against the float run's."""
    seed: int | None = None
    """Seed of the fine-tuning or training (default: the run's)."""


def run(argv: list[str]) -> int:
    """Parse, load, quantize, print where the result is."""
    name, rest = common.take_positional(argv, "qs5 quantize RUN [options]", "a run or zoo model")
    args = tyro.cli(Arguments, args=rest, prog=f"qs5 quantize {name}")
    spec = spec_of(args.spec)
    model, info = common.open_run(name)
    if info.spec is not None:
        raise UserError(f"{name}: expected a float run, got one quantized to {info.spec['name']}")
    if args.method != "qaft" and (args.distill or args.distill_layers):
        raise UserError(
            "--distill and --distill-layers: expected --method qaft, which has a float run to learn from, got "
            f"--method {args.method}"
        )
    model = methods.with_operators(model, gelu=args.gelu, gate=args.gate)
    label = spec.name.replace(",", "-").replace("=", "")
    out = args.out or Path("runs") / f"{Path(name).name}-{args.method}-{label}"
    if args.method == "ptq":
        task = common.load_for_judging(info.recipe, args.data_dir, "test")
        methods.ptq(model, task, spec, parent=info, name=name, out=out)
    else:
        _train(model, info, spec, common.load_task(info.recipe, args.data_dir), args, name=name, out=out)
    common.console.print(
        f"{spec.name}: {spec.widths(model.config)}; the quantized run is in {out}", soft_wrap=True
    )
    return 0


def _train(
    model: S5Model, info: RunInfo, spec: QuantSpec, task: Task, args: Arguments, *, name: str, out: Path
) -> None:
    options = info.recipe.train
    if args.seed is not None:
        options = options.replace(seed=args.seed)
    if args.method == "qaft":
        options = methods.qaft_options(
            options,
            lr_factor=args.lr_factor,
            epochs=args.epochs,
            distill=args.distill,
            distill_layers=args.distill_layers,
        )
    elif args.epochs is not None:
        options = options.replace(epochs=args.epochs)
    with common.training_progress(task, options.epochs) as observer:
        if args.method == "qaft":
            methods.qaft(
                model, task, spec, parent=info, name=name, options=options, out=out, observer=observer
            )
        else:
            recipe = dataclasses.replace(info.recipe, model=model.config, train=options)
            methods.qat(recipe, task, spec, out=out, observer=observer)
