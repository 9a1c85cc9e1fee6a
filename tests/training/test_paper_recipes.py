"""The full-scale recipes: they build, have the published parameter counts, and train a step while quantized.

The counts are those of lindermanlab/S5 (batch norm), as counted by its own code or by hand from its shapes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests import originals
from tests.support import shapes_of

from qs5 import tasks
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import S5Model, forward, init_model, with_statistics
from qs5.quantization.build import arithmetic_for_spec
from qs5.quantization.spec import spec_of
from qs5.tasks.batches import batches
from qs5.tasks.task import Split, Task
from qs5.training import methods
from qs5.training.evaluate import encode
from qs5.training.loop import initial_state, make_stepper
from qs5.training.recipe import Recipe, load_recipe
from qs5.training.run import complete


class Paper(NamedTuple):
    """A recipe, its data in the original format, its published parameter count, the length it is trained at."""

    recipe: str
    write: Callable[[Path], None]
    parameters: int
    length: int


PAPER = [
    Paper("text", originals.imdb_folder, 1_321_154, 4096),
    Paper("listops", originals.listops_files, 188_490, 2048),
    Paper("retrieval", originals.aan_files, 772_098, 4000),
    Paper("scifar", originals.cifar_folder, 5_133_706, 1024),
    Paper("pathfinder", originals.pathfinder_tree, 1_113_602, 1024),
    Paper("pathx", lambda base: originals.pathfinder_tree(base, 128), 694_018, 16_384),
    Paper("mackey_glass", lambda _: None, 624, 512),
]
IDS = [paper.recipe for paper in PAPER]


def load(paper: Paper, folder: Path, **options: Any) -> tuple[Recipe, Task]:
    """The recipe and its task on tiny data, with the sizes that the data decides."""
    paper.write(folder)
    recipe = load_recipe(paper.recipe)
    task = tasks.load(recipe.task, data_dir=str(folder), **{**recipe.data, **options})
    return complete(recipe, task), task


@pytest.mark.parametrize("paper", PAPER, ids=IDS)
def test_a_full_scale_recipe_has_the_published_size(paper: Paper, tmp_path: Path):
    # A short delay is quick to integrate; the other tasks have no such option.
    recipe, task = load(paper, tmp_path, **({"tau": 1} if paper.recipe == "mackey_glass" else {}))
    assert task.length == paper.length
    shapes = shapes_of(recipe.model)
    assert shapes.parameter_count == paper.parameters


def settled(model: S5Model, task: Task) -> S5Model:
    """The model with the running statistics of its training split.

    With those of a new network, mean 0 and variance 1, six layers of Path-X let the residual stream grow until the
    encoder's output rounds to 0 on the grid that both share, and no gradient is left.
    """
    (batch,) = batches(task.train, order=None, batch_size=len(task.train), drop_last=True)
    lengths = None if batch.lengths is None else jnp.asarray(batch.lengths)
    x = encode(jnp.asarray(batch.x), task.encoding)
    at_once = replace_config(model, bn_momentum=0.0)
    out = forward(at_once, x, arithmetic=FloatArithmetic(), lengths=lengths, batch_stats=True)
    return replace_config(with_statistics(at_once, out.statistics), bn_momentum=model.config.bn_momentum)


def replace_config(model: S5Model, **changes: Any) -> S5Model:
    return S5Model(**{**vars(model), "config": model.config.replace(**changes)})


def step(recipe: Recipe, task: Task, spec_name: str, *, B: int = 2) -> tuple[S5Model, S5Model, float]:
    """One training step of B examples under a quantization spec: model before, after, loss."""
    few = task.train.take(np.arange(B))
    small = Task(**{**vars(task), "train": few, "validation": few, "test": few})
    model = settled(init_model(jax.random.key(0), recipe.model), small)
    spec = spec_of(spec_name)
    arithmetic = arithmetic_for_spec(spec, recipe.model, methods.calibrated_plan(model, small, spec))
    # Without warm-up, whose first steps hardly move anything.
    stepper = make_stepper(model, small, recipe.train.replace(batch_size=B, warmup_epochs=0.0), 1)
    state = initial_state(model, stepper.optimizer, small)
    (batch,) = batches(few, order=None, batch_size=B, drop_last=True)
    new, _, loss = stepper.step(
        model, state.opt_state, batch.x, batch.y, batch.lengths, jax.random.key(1), arithmetic
    )
    return model, new, float(loss)


def shortened(task: Task, L: int) -> Task:
    """The first L steps of every sequence."""

    def cut(split: Split) -> Split:
        y = split.y if split.y.ndim == 1 else split.y[:, :L]
        lengths = None if split.lengths is None else np.minimum(split.lengths, L).astype(np.int32)
        return Split(x=split.x[..., :L, :], y=y, lengths=lengths)

    return Task(**{**vars(task), **{name: cut(split) for name, split in task.splits.items()}})


def check_step(recipe: Recipe, task: Task, spec: str) -> None:
    old, new, loss = step(recipe, task, spec)
    assert np.isfinite(loss)
    pairs = list(zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True))
    assert all(np.isfinite(leaf).all() for _, leaf in pairs)
    assert sum(bool(np.any(a != b)) for a, b in pairs) > 0.9 * len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPER, ids=IDS)
def test_a_full_scale_recipe_trains_a_deployable_step_at_its_length(paper: Paper, tmp_path: Path):
    recipe, task = load(paper, tmp_path)
    check_step(recipe, task, "W8A8Abar16")


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPER, ids=IDS)
def test_a_full_scale_recipe_trains_a_step_of_the_papers_qat(paper: Paper, tmp_path: Path):
    """On 64 steps: with 4 bits the paper's Lambda-bar leaves the unit disc, and 4,096 steps overflow float32."""
    recipe, task = load(paper, tmp_path)
    check_step(recipe, shortened(task, 64), "W4A8,schedule=parallel,range_rule=aqt")
