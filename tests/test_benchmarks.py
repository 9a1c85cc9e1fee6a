"""The timing harness: ratios are formed within a round, against the named reference; and the float peers' oracle."""

import shutil

import numpy as np
import pytest
from benchmarks.interleaved import Timing, interleave
from benchmarks.native.float_engine import FloatEngine
from benchmarks.native.onnx_step import OnnxStep
from benchmarks.native.parameters import LAYERS, MODES, Parameters, final_sums, random_parameters
from tests.clock import Clock

TOLERANCE = 2e-5
"""Relative to the largest sum: float32 through four layers against the oracle's wider states."""


def test_ratios_and_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratios 2, 4, 1, 1, 8 by round: their quartiles are 1, 2, 6, other than those of quotients of medians."""
    clock, calls = Clock(monkeypatch), list[str]()
    one, two = (
        clock.taking([1000, 1, 2, 1, 4, 1]),
        clock.taking([1000, 2, 8, 1, 4, 8]),
    )  # a warm-up, then rounds
    timings = interleave(
        {"one": lambda: (calls.append("one"), one()), "two": lambda: (calls.append("two"), two())},
        reference="one",
        rounds=5,
    )
    assert timings["one"] == Timing(seconds=1.0, ratio=1.0, low=1.0, high=1.0)
    assert timings["two"] == Timing(seconds=4.0, ratio=2.0, low=1.0, high=6.0)
    # One warm-up each, then the order alternates.
    assert calls[:6] == ["one", "two", "one", "two", "two", "one"]


@pytest.fixture(scope="module")
def parameters() -> Parameters:
    return random_parameters(3)


@pytest.fixture(scope="module")
def u() -> np.ndarray:
    return np.random.default_rng(1).uniform(size=(3, 50)).astype(np.float32)


def assert_sums(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape and np.max(np.abs(expected)) > 10.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.max(np.abs(expected)))


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_float_engine_computes_the_oracle(parameters: Parameters, u: np.ndarray) -> None:
    """Step by step, in blocks that do not divide the length, and cut in two."""
    engine, expected = FloatEngine(parameters), final_sums(parameters, u)
    pooled = slice(LAYERS * 2 * MODES, None)
    for block in (1, 48):
        assert_sums(engine.run(u, block=block)[:, pooled], expected)
    records = engine.run(np.ascontiguousarray(u[:, :20]), block=8)
    engine.advance(np.ascontiguousarray(u[:, 20:]), records, block=8)
    assert_sums(records[:, pooled], expected)


def test_the_onnx_step_computes_the_oracle(parameters: Parameters, u: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    step = OnnxStep(parameters, len(u))
    step.run(u)
    assert_sums(np.asarray(step.state[-1]), final_sums(parameters, u))
