"""The fragments that all ops are made of, at the edges of their ranges, against the functions of the reference."""

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest

from qs5.backends.onnx import arithmetic as a
from qs5.backends.onnx.builder import IR_VERSION, OPSET, Builder
from qs5.integer import arithmetic as exact

INT32 = 2**31 - 1
EDGES = np.array(
    [-INT32, -INT32 + 1, -(2**16), -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 2**16, INT32 - 1, INT32]
)


def evaluate(fragment: Callable[[Builder, str], str], x: np.ndarray, *, out: str) -> np.ndarray:
    """What the nodes of a fragment make of x; out: the type of the result."""
    b = Builder()
    b.node("Identity", fragment(b, "x"), out="y")
    inputs = [b.declare("x", x.dtype.name, x.shape)]
    graph = b.graph("test", inputs=inputs, outputs=[b.declare("y", out, [None] * x.ndim)])
    opsets = [b.onnx.helper.make_opsetid("", OPSET)]
    proto = b.onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    (y,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    return np.asarray(y)


@pytest.mark.parametrize("s", [0, 1, 2, 15, 29])
def test_right_shift_rounds_halves_up_for_both_signs(s: int) -> None:
    x = EDGES[np.abs(EDGES) <= INT32 - 2**29].astype(np.int32)
    got = evaluate(lambda b, v: a.shift(b, v, s), x, out="int32")
    np.testing.assert_array_equal(got, exact.shift(x, s))


def test_shifts_of_either_sign_side_by_side() -> None:
    s = np.arange(-15, 16)
    x = np.stack([np.full(31, v) for v in (-(2**15), -3, -1, 0, 1, 3, 2**15 - 1)]).astype(np.int32)
    got = evaluate(lambda b, v: a.shift(b, v, s), x, out="int32")
    np.testing.assert_array_equal(got, exact.shift(x, s))


@pytest.mark.parametrize("M", [0, 2**14, 2**14 + 1, 2**15 - 1])
@pytest.mark.parametrize("s", [1, 2, 16, 17, 31, 46])
def test_requantize(M: int, s: int) -> None:
    x = EDGES.astype(np.int32)
    got = evaluate(lambda b, v: a.requantize(b, v, M, s), x, out="int64")
    np.testing.assert_array_equal(got, exact.requantize(x, M, s))


@pytest.mark.parametrize("s", [1, 30, 62])
@pytest.mark.parametrize("offset", [-(2**61) + 1, 0, 2**61 - 1])
@pytest.mark.parametrize("M", [-INT32, 1, INT32])
def test_affine_of_the_input_fills_64_bits(M: int, offset: int, s: int) -> None:
    x = np.array([-(2**15), -1, 0, 1, 255, 2**15 - 1], np.int64)
    got = evaluate(lambda b, v: a.affine(b, v, M=M, offset=offset, shift=s, width=64), x, out="int64")
    expected = [(int(v) * M + offset + 2 ** (s - 1)) // 2**s for v in x]  # Python's integers do not overflow
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("n", [1, 2, 3, 784, 2**31 - 1])
def test_rounded_divide_is_a_mean_to_nearest(n: int) -> None:
    x = np.concatenate([EDGES, EDGES * n, EDGES * 7 + 1]).astype(np.int64)
    got = evaluate(lambda b, v: a.rounded_divide(b, v, b.constant(n, "int64"), width=64), x, out="int64")
    np.testing.assert_array_equal(got, exact.rounded_mean(x, n))


def test_bit_length() -> None:
    x = np.array([[0], [1], [2], [3], [4], [2**30 - 1], [2**30], [2**31 - 1], [2**31]], np.int64)
    got = evaluate(lambda b, v: a.bit_length(b, v, bits=32), x, out="int64")
    np.testing.assert_array_equal(got[:, 0], [int(v).bit_length() for v in x[:, 0]])


def test_square_root_around_squares(rng: np.random.Generator) -> None:
    roots = np.concatenate([[0, 1, 2, 3, 2**15, 2**16 - 1], rng.integers(0, 2**16, 200)])
    v = np.concatenate([roots**2, np.maximum(roots**2 - 1, 0), roots**2 + roots, [2**32 - 1]])
    got = evaluate(a.integer_sqrt, v.astype(np.int64), out="int64")
    np.testing.assert_array_equal(got, exact.integer_sqrt(v))
    assert np.all(got**2 <= v)
    assert np.all((got + 1) ** 2 > v)


@pytest.mark.parametrize("H", [1, 2, 3, 16, 96, 2**14])
def test_normalize_from_equal_to_extreme_channels(H: int, rng: np.random.Generator) -> None:
    high = min(2**15 - 1, 2**29 // H)
    rows = [np.zeros(H), np.full(H, high), np.full(H, -high), np.eye(1, H)[0], -high * np.eye(1, H)[0]]
    rows += [high * rng.choice([-1, 1], H), high * np.where(np.arange(H) % 2, 1, -1), rng.integers(0, 2, H)]
    rows += [rng.integers(-size, size + 1, H) for size in (1, 5, 200, high)]
    x = np.stack(rows).astype(np.int32)
    got = evaluate(lambda b, v: a.normalize(b, v, H), x, out="int64")
    np.testing.assert_array_equal(got, exact.normalize(x))


def test_a_constant_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected constants within int8, got 1 to 128"):
        Builder().constant([1, 128], "int8")
