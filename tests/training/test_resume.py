"""A run that was interrupted, wherever, becomes bit for bit the run that was not."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import assert_same_bits, small_model, small_recipe, small_task

from qs5.model.arithmetic import FloatArithmetic
from qs5.model.files import load_model
from qs5.model.network import init_model
from qs5.training import loop, record, run
from qs5.training.checkpoints import Checkpoints, TrainState
from qs5.training.loop import EpochReport, Observer, StepReport
from qs5.training.methods import train


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 epochs in one go."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(small_recipe(), small_task(), out=folder)
    return folder


def stored_state(folder: Path) -> TrainState:
    """The last checkpoint of a run of `small_recipe`."""
    task, model = small_task(), small_model(d_in=1, d_out=3, dropout=0.1)
    stepper = loop.make_stepper(model, task, small_recipe().train, 4)
    checkpoints = Checkpoints(folder)
    state = checkpoints.restore(loop.initial_state(model, stepper.optimizer, task))
    checkpoints.close()
    assert state is not None
    return state


def results(folder: Path) -> list[dict[str, Any]]:
    """The records but for when, how long and in how much memory."""
    changing = {"seconds", "peak_mib", "time", "command", "commit", "machine"}
    return [{k: v for k, v in r.items() if k not in changing} for r in record.read(folder / "records.jsonl")]


def assert_same_run(folder: Path, whole: Path) -> None:
    assert_same_bits(stored_state(folder), stored_state(whole))
    assert (folder / "run.json").read_bytes() == (whole / "run.json").read_bytes()
    # Not the bytes of the file: safetensors writes its metadata in any order.
    mine, theirs = (load_model(path / "model.safetensors") for path in (folder, whole))
    assert_same_bits(mine.model, theirs.model)
    assert mine.info == theirs.info
    assert results(folder) == results(whole)


def interrupted_step(at: tuple[int, int]) -> Observer:
    def step(report: StepReport) -> None:
        if (report.epoch, report.step) == at:
            raise KeyboardInterrupt

    return Observer(step=step)


def interrupted_epoch(at: int) -> Observer:
    """After the records and the selected model are written, before the checkpoint."""

    def epoch(report: EpochReport, *_: Any) -> None:
        if report.epoch == at:
            raise KeyboardInterrupt

    return Observer(epoch=epoch)


def test_a_run_leaves_what_it_says(whole: Path):
    state = stored_state(whole)
    assert state.epoch == 4
    # Adam and the schedule went on counting from epoch to epoch.
    counts = [int(x) for x in jax.tree.leaves(state.opt_state) if jnp.issubdtype(x.dtype, jnp.integer)]
    assert set(counts) == {16}
    stored = load_model(whole / "model.safetensors")
    assert_same_bits(stored.model, state.best_model)
    info = run.read_run(whole)
    assert run.from_json(stored.info, source="model") == info
    assert info.recipe == run.complete(small_recipe(), small_task())
    rows = results(whole)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert {row["split"] for row in rows} == {"validation"}
    values = [row["value"] for row in rows]
    assert (state.best_metric, state.best_epoch) == (max(values), values.index(max(values)) + 1)
    # It learns: three classes, and the loss of guessing is log 3.
    assert rows[3]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert state.best_metric > 0.6


def test_an_interrupted_run_becomes_the_run_that_was_not(whole: Path, tmp_path: Path):
    """Interrupted in the middle of epoch 3, then between epoch 3 and its checkpoint, then left alone."""
    folder = tmp_path / "interrupted"
    for observer in (interrupted_step((3, 2)), interrupted_epoch(3)):
        with pytest.raises(KeyboardInterrupt):
            train(small_recipe(), small_task(), out=folder, observer=observer)
        assert stored_state(folder).epoch == 2
        # What is there is usable: the best model so far.
        load_model(folder / "model.safetensors")
    assert [row["epoch"] for row in results(folder)] == [1, 2, 3]
    selected = train(small_recipe(), small_task(), out=folder)
    assert_same_run(folder, whole)
    assert_same_bits(selected, stored_state(whole).best_model)


def test_a_finished_run_is_not_trained_again(whole: Path):
    before = {path: path.read_bytes() for path in whole.iterdir() if path.is_file()}

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    selected = train(small_recipe(), small_task(), out=whole, observer=Observer(step=never, epoch=never))
    assert_same_bits(selected, load_model(whole / "model.safetensors").model)
    assert {path: path.read_bytes() for path in whole.iterdir() if path.is_file()} == before


def test_another_seed_is_another_run(whole: Path, tmp_path: Path):
    train(small_recipe(seed=1), small_task(), out=tmp_path / "other")
    assert [row["train_loss"] for row in results(tmp_path / "other")] != [
        row["train_loss"] for row in results(whole)
    ]


def test_the_seed_decides_the_order_of_the_data_too(whole: Path, tmp_path: Path):
    """From the same initial model, another seed gives another model."""
    task, recipe = small_task(), small_recipe()
    config = run.complete(recipe, task).model
    fits = [
        loop.fit(
            init_model(jax.random.key(0), config),
            task,
            arithmetic_for=lambda _: FloatArithmetic(),
            options=small_recipe(seed=seed).train,
        ).model
        for seed in (0, 1)
    ]
    assert_same_bits(fits[0], stored_state(whole).model)
    assert not np.array_equal(fits[0].encoder.weight, fits[1].encoder.weight)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from qs5.training.loop import Observer
from qs5.training.methods import train
from tests.support import small_recipe, small_task

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

at = sys.argv[2]
step = lambda report: die() if at == "step" and (report.epoch, report.step) == (3, 2) else None
epoch = lambda report, *_: die() if at == "epoch" and report.epoch == 3 else None
train(small_recipe(), small_task(), out=Path(sys.argv[1]), observer=Observer(step=step, epoch=epoch))
"""


def trained_in_a_process(folder: Path, at: str, repository: Path) -> int:
    """Exit code of an interpreter that trains in `folder` and kills itself at a step, an epoch or never."""
    command = [sys.executable, "-c", SCRIPT, str(folder), at]
    return subprocess.run(command, cwd=repository, capture_output=True, timeout=600).returncode


@pytest.mark.slow
def test_a_killed_run_becomes_the_run_that_was_not(tmp_path: Path, repository: Path):
    """Every process compiles for itself."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert trained_in_a_process(whole, "never", repository) == 0
    for at in ("step", "epoch"):
        assert trained_in_a_process(killed, at, repository) == -signal.SIGKILL
    assert trained_in_a_process(killed, "never", repository) == 0
    assert_same_run(killed, whole)
