"""Emitted C on emulated cores: every logit is the reference's, SMLAD and MVE paths included, and what it costs."""

import os
from pathlib import Path

import numpy as np
import pytest
from tests.conformance.models import random_integer_model, random_sequences
from tests.emitted import emit
from tests.mcu import require

from qs5 import integer, zoo
from qs5.backends.mcu import CORES, Core
from qs5.cli.bench_mcu import CoreCost, cost_table, run_on_core, table_text
from qs5.cli.golden import golden_of
from qs5.integer.cost import step_macs
from qs5.integer.model import IntegerModel

ZOO_MODEL = "smnist-w8a8abar16"
IMAGES = 5
FLASH, RAM = 180 * 1024, 6 * 1024
PER_MAC = {"cortex-m3": 6.0, "cortex-m4": 2.5, "cortex-m7": 2.5}
"""Goals: instructions of a whole step for each multiply-accumulate of the model."""
SEEDS = range(10)


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> Core:
    """Every core in turn."""
    return require(CORES[request.param])


def _run(
    core: Core, model: IntegerModel, sequences: list[np.ndarray], folder: Path, **defines: str | int
) -> CoreCost:
    """What a core answers must be what the reference answers."""
    cost = run_on_core(core, model, emit(model, folder, sequences), sequences, folder=folder, defines=defines)
    for got, expected in zip(cost.answers, golden_of(model, sequences).answers, strict=True):
        np.testing.assert_array_equal(got, expected)
    return cost


def _random(core: Core, seed: int, folder: Path, **fixed: object) -> CoreCost:
    model = random_integer_model(seed, **fixed)
    return _run(core, model, random_sequences(model, seed=seed, lengths=(1, 2, 12)), folder)


def test_a_random_model_on_every_core(core: Core, tmp_path: Path) -> None:
    _random(core, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_random_models_on_every_core(core: Core, seed: int, tmp_path: Path) -> None:
    _random(core, seed, tmp_path, bidirectional=seed % 3 == 0, task="regression" if seed % 4 == 1 else None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_fast_paths_equal_plain_c_and_take_fewer_instructions(bits: int, name: str, tmp_path: Path) -> None:
    core = require(CORES[name])
    model = random_integer_model(30 + bits, weight_bits=bits, H=37, modes=21, layers=1, wide_unsigned=False)
    sequences = random_sequences(model, seed=bits, lengths=(1, 9))
    fast = _run(core, model, sequences, tmp_path / "fast")
    plain = _run(core, model, sequences, tmp_path / "plain", QS5_PLAIN=1)
    assert fast.step_instructions < 0.8 * plain.step_instructions


@pytest.mark.slow
def test_packed_weights_take_less_flash(tmp_path: Path) -> None:
    core = require(CORES["cortex-m3"])
    flash = {}
    for bits in (2, 4, 8):
        model = random_integer_model(7, weight_bits=bits, H=64, modes=32, layers=1, bidirectional=False)
        folder = tmp_path / str(bits)
        flash[bits] = (
            _run(core, model, random_sequences(model, seed=7, lengths=(2,)), folder),
            step_macs(model),
        )
    for bits in (2, 4):
        saved = flash[8][0].flash_bytes - flash[bits][0].flash_bytes
        assert saved > 0.8 * flash[8][1] * (8 - bits) / 8


# -- the sMNIST model --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smnist() -> IntegerModel:
    """The zoo's model; QS5_SMNIST_MODEL names another file."""
    path = os.environ.get("QS5_SMNIST_MODEL", ZOO_MODEL)
    if path == ZOO_MODEL and ZOO_MODEL not in zoo.integer_names():
        pytest.skip(f"{ZOO_MODEL} is not in the zoo; QS5_SMNIST_MODEL=<file> names another model")
    return integer.load(path)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Raw test images (784, 1), from those that come with the package."""
    from qs5 import tasks

    x = tasks.load("smnist", parts="embedded").test.x[:IMAGES]
    return list(np.asarray(x).reshape(IMAGES, 784, 1).astype(np.int64))


@pytest.mark.slow
def test_five_whole_test_images_on_every_core(
    core: Core, smnist: IntegerModel, images: list[np.ndarray], tmp_path: Path
) -> None:
    (row,) = cost_table(smnist, images, folder=tmp_path, cores=[core.name])  # raises where a logit differs
    print(f"\n{table_text([row])}\nsMNIST, {IMAGES} images of {len(images[0])} steps")
    assert row.flash_bytes <= FLASH
    assert row.ram_bytes + row.stack_bytes <= RAM
    assert row.instructions_per_mac <= PER_MAC.get(core.name, 10.0)


def test_sizes_of_the_smnist_model(smnist: IntegerModel, images: list[np.ndarray], tmp_path: Path) -> None:
    """The goals on three steps, so that every run of the tests sees them."""
    cores = [require(CORES[name]).name for name in PER_MAC]
    rows = cost_table(smnist, [images[0][:3]], folder=tmp_path, cores=cores)
    print(f"\n{table_text(rows)}")
    for row in rows:
        assert row.flash_bytes <= FLASH
        assert row.ram_bytes + row.stack_bytes <= RAM
        assert row.instructions_per_mac <= PER_MAC[row.core.name]
