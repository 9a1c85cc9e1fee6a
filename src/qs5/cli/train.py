"""`qs5 train TASK`: train a float S5 on a task."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import tyro

from qs5.cli import common
from qs5.model.config import ModelConfig
from qs5.tasks import Task
from qs5.training.options import TrainOptions
from qs5.training.recipe import Recipe, load_recipe


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train an S5 on a task. Options start from the task's recipe; each can be changed by its dotted name."""

    out: Path
    """Folder of the run. The same command again continues an interrupted run."""
    data_dir: str | None = None
    """Where the data sets are (else $QS5_DATA)."""
    data: tuple[str, ...] = ()
    """Options of the data set's loader as key=value (custom: path=my.npz)."""
    seeds: tuple[int, ...] = ()
    """Several seeds in one call: one run each, in OUT/seed-N."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run's folder."""
    model: ModelConfig
    train: TrainOptions


def run(argv: list[str]) -> int:
    """Parse, load the data, train, print the result."""
    name, rest = common.take_positional(argv, "qs5 train TASK [options]", "a task or a recipe (.toml)")
    recipe = load_recipe(name)
    default = Arguments(out=Path("runs") / Path(name).stem, model=recipe.model, train=recipe.train)
    args = tyro.cli(Arguments, default=default, args=rest, prog=f"qs5 train {name}")
    data = {**recipe.data, **common.key_values(args.data)}
    recipe = dataclasses.replace(recipe, model=args.model, train=args.train, data=data)
    task = common.load_task(recipe, args.data_dir)
    for seed in args.seeds or (None,):
        _train_one(recipe, task, args, seed)
    return 0


def _train_one(recipe: Recipe, task: Task, args: Arguments, seed: int | None) -> None:
    from qs5.training import methods

    out = args.out
    if seed is not None:
        recipe = dataclasses.replace(recipe, train=recipe.train.replace(seed=seed))
        out = out / f"seed-{seed}"
    events = out / "tensorboard" if args.tensorboard else None
    with common.training_progress(task, recipe.train.epochs, tensorboard=events) as observer:
        model = methods.train(recipe, task, out=out, observer=observer)
    common.console.print(
        f"{model.parameter_count:,} parameters; the selected model is in {out}", soft_wrap=True
    )
