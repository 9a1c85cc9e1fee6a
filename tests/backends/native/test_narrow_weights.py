"""Weights of 4 and 2 bits, which stay packed for single steps on AVX-512: the reference's codes in every size."""

from typing import Any

import numpy as np
import pytest
from tests.integer.small import array, dense, output, recurrence, regression, signal

from qs5.backends import reference
from qs5.backends.native import NativeEngine, levels
from qs5.integer.model import IntegerModel

RANGES = ((-2, 1), (-8, 7), (-1, 1), (-2, 2), (-8, 8), (-9, 7))
"""Of weights: those that just fit 2 and 4 bits, and those that just do not."""
OUTPUTS = (1, 31, 32, 33, 64, 65, 96, 97, 128, 129, 160, 161, 192, 193, 224, 225)
"""Tiles have 32, 64, 96 and 128 outputs, and a matrix one or two of them; each is also cut by one."""
INPUTS = (1, 3, 4, 5, 63, 64, 65, 97, 129)
STEPS = 5

every_level = pytest.mark.parametrize("level", levels())
every_range = pytest.mark.parametrize("low, high", RANGES)


def weights(rng: np.random.Generator, shape: tuple[int, int], low: int, high: int) -> np.ndarray:
    """Random codes; the first row has the lowest alone, the last one the highest."""
    found = rng.integers(low, high + 1, shape)
    found[0], found[-1, -1] = low, high
    found[-1] = high if len(found) > 1 else found[-1]
    return found


def assert_equal(model: IntegerModel, raw: np.ndarray, level: str) -> None:
    """Step by step, in blocks, and with every op by itself."""
    expected = reference.logits(model, raw)
    for fused in (True, False):
        engine = NativeEngine(model, level=level, fused=fused)
        for block in (1, 2, 0):
            got = engine.stream(len(raw)).run(raw, block=block)
            np.testing.assert_array_equal(got, expected, err_msg=f"fused {fused}, blocks of {block}")


@every_level
@every_range
@pytest.mark.parametrize("signed", [True, False])
def test_products_of_every_size(level: str, low: int, high: int, signed: bool) -> None:
    rng = np.random.default_rng(0)
    for i in range(len(OUTPUTS) + len(INPUTS)):
        O, I = OUTPUTS[5 * i % len(OUTPUTS)], INPUTS[i % len(INPUTS)]  # noqa: E741
        x = signal("input", I, signed=signed)
        ratio: dict[str, Any] = {
            "M": array([2**14] * O, "int16"),
            "shift": array(16 + np.arange(O) % 5, "uint8"),
        }
        op = dense(
            "input",
            signal("y", O, 16),
            weights(rng, (O, I), low, high),
            bias=rng.integers(-99, 99, O),
            **ratio,
        )
        raw = rng.choice([x.low, x.high, 0, 1, x.high // 3], (1, STEPS, I))
        raw[0, 0], raw[0, 1] = x.low, x.high
        assert_equal(regression([op], x), raw, level)


@every_level
@every_range
@pytest.mark.parametrize("modes, outputs", [(2, 3), (17, 33), (64, 96), (66, 129)])
def test_the_output_of_an_ssm(level: str, low: int, high: int, modes: int, outputs: int) -> None:
    """C beside the direct term, and B before it, with a state."""
    rng = np.random.default_rng(1)
    x, Bu = signal("input", outputs), signal("Bu", 2 * modes)
    read = output("state", "input", signal("y", outputs), weights(rng, (outputs, 2 * modes), low, high))
    ops = [
        dense("input", Bu, weights(rng, (2 * modes, outputs), low, high)),
        recurrence("Bu", signal("state", 2 * modes)),
        read,
    ]
    raw = rng.integers(x.low, x.high + 1, (1, STEPS, outputs))
    assert_equal(regression(ops, x), raw, level)


@every_level
@pytest.mark.parametrize("low, high", RANGES[:3])
def test_both_directions_of_one_step(level: str, low: int, high: int) -> None:
    """A sequence of one step is a single row whose inputs are two signals."""
    rng = np.random.default_rng(2)
    x = signal("input", 70)
    ops = [
        recurrence("input", signal("f", 70)),
        recurrence("input", signal("r", 70), reverse=True),
        output("f", "input", signal("y", 70, 16), weights(rng, (70, 140), low, high), x_reverse="r"),
    ]
    model = regression(ops, x)
    raw = rng.integers(x.low, x.high + 1, (3, 1, 70))
    expected = reference.logits(model, raw)
    for i in range(len(raw)):
        got = NativeEngine(model, level=level).logits(raw[i : i + 1])
        np.testing.assert_array_equal(got, expected[i : i + 1])
