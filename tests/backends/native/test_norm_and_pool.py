"""The layer norm and the pool of the native engine at the edges of their arithmetic."""

import numpy as np
import pytest
from tests.integer.small import affine, array, dense, regression, signal

from qs5.backends import reference
from qs5.backends.native import NativeEngine, levels
from qs5.integer import ops as o

every_level = pytest.mark.parametrize("level", levels())


def edges(rng: np.random.Generator, n: int, high: int) -> np.ndarray:
    """Steps (L, n): constant ones, one channel beside the others, alternating ones, noise of every size."""
    one = np.zeros(n, np.int64)
    one[n // 2] = 1
    signs = np.where(np.arange(n) % 2, -1, 1)
    steps = [0 * one, high + 0 * one, -high + 0 * one, one, -one, high * one, high - one, signs, high * signs]
    sizes = 2.0 ** rng.uniform(0, np.log2(high) + 1, 100)
    noise = np.clip(np.rint(rng.normal(0, 1, (100, n)) * sizes[:, None]), -high, high).astype(np.int64)
    return np.concatenate([np.stack(steps), noise])


@every_level
@pytest.mark.parametrize("bits", [16, 8, 2])
@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 96, 129, 512])
def test_layer_norm(level: str, bits: int, n: int) -> None:
    x = signal("input", n, bits)
    model = regression([affine("input", signal("y", n, 16), M=2**14, shift=14, cls=o.LayerNorm)], x)
    raw = edges(np.random.default_rng(n), n, x.high)[None]
    expected = reference.logits(model, raw)
    assert len(np.unique(expected)) > (0 if n == 1 else 2)
    for block in (1, 0):
        got = NativeEngine(model, level=level).stream().run(raw, block=block)
        np.testing.assert_array_equal(got, expected)


@every_level
def test_a_pool_of_more_rows_than_sums_of_32_bits_hold(level: str) -> None:
    """70,000 steps of the largest code of 16 unsigned bits, in one block."""
    x = signal("input", 65, 16, signed=False)
    last = dense("pool", signal("y", 1, 16), np.eye(1, 65, dtype=int), shift=array([16], "uint8"))
    ops = [o.MeanPool(out=signal("pool", 65, 16, signed=False), x="input"), last]
    model = regression(ops, x, task="classification", max_length=2**16 * 2)
    stream = NativeEngine(model, level=level).stream()
    stream.run(np.full((1, 70_000, 65), x.high, np.uint16), block=2**17)
    assert stream.state["pool.total"].tolist() == [[70_000 * x.high] * 65]
    assert stream.answer().tolist() == [[(x.high + 1) // 4]]
