"""The keyword models: what their cards say, on the real recordings where `$QS5_DATA` has them, and on a Cortex-M4."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from tests.mcu import require

from qs5 import integer, tasks, zoo
from qs5.backends.mcu import CORES
from qs5.cli.bench_mcu import cost_table
from qs5.integer.cost import costs
from qs5.integer.engine import Backend
from qs5.integer.model import IntegerModel
from qs5.tasks import fsdd
from qs5.tasks.metrics import accuracy
from qs5.tasks.task import Split
from qs5.training import methods, run

PARENT, KEYWORD = "fsdd-float", "fsdd-keyword"
WEIGHTS, FLASH, RAM = 32 * 1024, 32 * 1024, 8 * 1024
"""Goals in bytes: of the constants; of code and constants together; of state and stack."""
GOAL = 95.0
"""Test accuracy in % of the integer model that the project is after."""
CORE = "cortex-m4"
SPOKEN = 3
"""Recordings that run on the emulated core."""


@pytest.fixture(scope="module")
def model() -> IntegerModel:
    """The integer model."""
    return integer.load(KEYWORD)


@pytest.fixture(scope="module")
def spoken() -> Split:
    """The 300 test recordings, or a skip with the reason."""
    folder = os.environ.get("QS5_DATA")
    if not any((Path(folder or "/nowhere") / below / fsdd.FILE).exists() for below in fsdd.BELOW):
        pytest.skip(f"needs {fsdd.FILE} in $QS5_DATA")
    return tasks.load("fsdd", data_dir=folder).test


def _claim(name: str) -> float:
    claimed = re.search(r"Test accuracy: \*\*([0-9.]+) %\*\*", (zoo.FOLDER / name / "CARD.md").read_text())
    assert claimed is not None
    return float(claimed.group(1))


def _chirps(count: int, steps: int) -> np.ndarray:
    """Made-up sounds (count, steps, 32) int64, from silence to clipping."""
    t = np.arange(steps * 32) / 8000
    rows = [np.sin(2 * np.pi * (200 + 1500 * k * t) * t) * 500.0 * 20**k for k in range(count)]
    return np.clip(np.rint(rows), -(2**15), 2**15 - 1).astype(np.int64).reshape(count, steps, 32)


def test_it_fits_and_reaches_the_goal_by_its_card(model: IntegerModel) -> None:
    assert sum(cost.bytes for cost in costs(model)) <= WEIGHTS
    assert _claim(KEYWORD) >= GOAL


def test_engines_agree_on_made_up_sounds(model: IntegerModel) -> None:
    raw, lengths = _chirps(3, 20), np.array([20, 7, 1], np.int32)
    expected = integer.engine(model, "reference").logits(raw, lengths)
    assert len({tuple(row) for row in expected.tolist()}) == 3
    for name in _others():
        np.testing.assert_array_equal(integer.engine(model, name).logits(raw, lengths), expected)


def _others() -> list[Backend]:
    return [name for name in ("native", "c99", "onnx") if integer.available(name)]


def test_flash_and_ram_on_the_emulated_core(model: IntegerModel, tmp_path: Path) -> None:
    """Three steps, each logit compared; so that every run of the tests sees the sizes."""
    core = require(CORES[CORE])
    (row,) = cost_table(model, [_chirps(1, 3)[0]], folder=tmp_path, cores=[core.name])
    assert row.flash_bytes <= FLASH
    assert row.ram_bytes + row.stack_bytes <= RAM


@pytest.mark.slow
def test_parent_is_as_good_as_its_card_says(spoken: Split) -> None:
    info, stored = run.read_run(zoo.FOLDER / PARENT), run.read_model(zoo.FOLDER / PARENT)
    task = tasks.load("fsdd", data_dir=os.environ["QS5_DATA"])
    assert task.test.identity == spoken.identity
    assert round(100 * methods.judge(stored.model, task, info=info).value, 2) == _claim(PARENT)


@pytest.mark.slow
def test_integers_are_as_good_as_their_card_says(model: IntegerModel, spoken: Split) -> None:
    raw = spoken.x.astype(np.int64)
    answers = integer.engine(model).logits(raw, spoken.lengths)
    assert round(100 * accuracy(answers, spoken.y), 2) == _claim(KEYWORD)
    some = slice(0, 300, 30)
    lengths = None if spoken.lengths is None else spoken.lengths[some]
    for name in ("reference", *_others()):
        np.testing.assert_array_equal(integer.engine(model, name).logits(raw[some], lengths), answers[some])


@pytest.mark.slow
def test_recordings_on_the_emulated_core(model: IntegerModel, spoken: Split, tmp_path: Path) -> None:
    core = require(CORES[CORE])
    assert spoken.lengths is not None
    recordings = [spoken.x[k, : spoken.lengths[k]].astype(np.int64) for k in range(0, 300, 300 // SPOKEN)]
    (row,) = cost_table(model, recordings, folder=tmp_path, cores=[core.name])  # raises where a logit differs
    answers = integer.engine(model).logits(
        spoken.x[:: 300 // SPOKEN].astype(np.int64), spoken.lengths[:: 300 // SPOKEN]
    )
    np.testing.assert_array_equal(row.answers, answers)
