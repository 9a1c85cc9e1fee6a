"""32-bit JAX integers against 64-bit NumPy definitions. All comparisons are exact."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qs5.numerics.multiplier import FixedPointMultiplier, fixed_point, requantize
from qs5.quantization import integer_ops as ops
from qs5.quantization.weights import mantissa_shift


@pytest.mark.parametrize("shift", [1, 2, 7, 15, 16, 17, 18, 25, 31, 40, 46])
def test_requantize_equals_the_definition(shift: int, rng: np.random.Generator) -> None:
    acc = rng.integers(-(2**31) + 1, 2**31 - 1, 4000) >> rng.integers(0, 31, 4000)
    acc = np.concatenate([acc, [0, 1, -1, 2**31 - 1, -(2**31) + 1]])
    M = rng.integers(2**14, 2**15, acc.shape)
    expected = requantize(
        acc, FixedPointMultiplier(M, np.full(acc.shape, shift)), low=-(2**15), high=2**15 - 1
    )
    arrays = (jnp.asarray(v, jnp.int32) for v in (acc, M, np.full(acc.shape, shift)))
    got = ops.requantize(*arrays, low=-(2**15), high=2**15 - 1)
    np.testing.assert_array_equal(np.asarray(got), expected)


def test_mantissa_shift_equals_the_definition(rng: np.random.Generator) -> None:
    ratios = np.float32(2.0) ** rng.uniform(-30, 13, 2000).astype(np.float32)
    expected = fixed_point(ratios)
    M, shift = mantissa_shift(jnp.asarray(ratios))
    np.testing.assert_array_equal(np.asarray(M), expected.M)
    np.testing.assert_array_equal(np.asarray(shift), expected.shift)


@pytest.mark.parametrize(("x_high", "inner"), [(127, 96), (255, 1500), (32767, 300), (1, 3)])
def test_exact_dot_equals_int64(x_high: int, inner: int, rng: np.random.Generator) -> None:
    x = rng.integers(-x_high, x_high + 1, (5, inner))
    x[0] = x_high
    w = rng.integers(-127, 128, (inner, 7))
    w[:, 0] = 127 if x_high * inner * 127 < 2**31 else 1
    got = ops.exact_dot(jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32), x_high=x_high, w_high=127)
    np.testing.assert_array_equal(np.asarray(got), x @ w)


def test_affine_is_the_integer_formula_and_close_to_the_real_one(rng: np.random.Generator) -> None:
    gain = rng.normal(size=64).astype(np.float32) * 2.0 ** rng.integers(-12, 3, 64)
    offset = rng.normal(size=64).astype(np.float32) * 40
    a = ops.fixed_affine(jnp.asarray(gain, jnp.float32), jnp.asarray(offset, jnp.float32))
    x = rng.integers(-32767, 32768, (500, 64))
    got = np.asarray(
        ops.affine(jnp.asarray(x, jnp.int32), ops.Affine(*(v[None] for v in a)), low=-127, high=127)
    )
    M, b, s = (np.asarray(v, np.int64)[None] for v in a)
    exact = np.clip((x * M + b + (np.int64(1) << (s - 1))) >> s, -127, 127)
    np.testing.assert_array_equal(got, exact)
    real = np.clip(np.floor(x * gain[None] + offset[None] + 0.5), -127, 127)
    assert np.max(np.abs(got - real)) <= 1
    assert np.mean(got != real) < 0.01


@pytest.mark.parametrize("lengths", [None, [1, 2, 3, 13]])
def test_mean_over_time_rounds_halves_up(lengths: list[int] | None, rng: np.random.Generator) -> None:
    q = rng.integers(-32767, 32768, (13, 4, 3))
    ns = np.array(lengths or [13] * 4)
    masked = np.where(np.arange(13)[:, None, None] < ns[None, :, None], q, 0)
    expected = np.floor(masked.sum(axis=0) / ns[:, None] + 0.5)
    got = ops.mean_over_time(jnp.asarray(masked, jnp.int32), None if lengths is None else jnp.asarray(ns))
    np.testing.assert_array_equal(np.asarray(got), expected)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("a_bits", "state_high"), [(16, 32767), (8, 32767), (8, 127), (4, 32767)])
def test_recurrence_equals_a_loop_over_python_integers(
    a_bits: int, state_high: int, reverse: bool, jitted: bool, rng: np.random.Generator
) -> None:
    L, M = 40, 3
    high = 2 ** (a_bits - 1) - 1
    a = rng.integers(-high, high + 1, (2, M))
    a[:, 0] = high  # the largest accumulator, and saturation
    M_step, shift = (1, a_bits - 1) if a_bits == 16 else (int(rng.integers(2**14, 2**15)), 14 + a_bits - 1)
    b, x0 = (rng.integers(-state_high, state_high + 1, s) for s in ((L, 1, 2 * M), (1, 2 * M)))
    step = np.exp2(rng.integers(-12, 1, M)).repeat(2).reshape(M, 2).T.reshape(-1).astype(np.float32)
    ints = _rotation(a, M=M_step, shift=shift, step=step)
    power = shift if a_bits == 16 else None
    real = [jnp.asarray(v, jnp.float32) for v in (a[0][None], a[1][None], b * step, x0 * step)]

    def run(*arrays: Any) -> jax.Array:
        return ops.exact_recurrence(*arrays, power, state_high, reverse)

    got = np.asarray((jax.jit(run) if jitted else run)(*real, ints)) / step
    expected = _loop(a, b, x0, M_step, shift, state_high, reverse)
    np.testing.assert_array_equal(got, expected)


def _rotation(a: np.ndarray, *, M: Any, shift: Any, step: np.ndarray) -> ops.Rotation:
    re, im = jnp.asarray(a, jnp.int32)
    return ops.Rotation(re, im, jnp.int32(M), jnp.int32(shift), jnp.asarray(step))


def _loop(
    a: np.ndarray, b: np.ndarray, x0: np.ndarray, M_step: int, shift: int, high: int, reverse: bool
) -> np.ndarray:
    """One mode, one step, one Python integer at a time."""
    L, _, S = b.shape
    M = S // 2
    out = np.zeros(b.shape, np.int64)
    for m in range(M):
        re, im = int(x0[0, m]), int(x0[0, m + M])
        for k in reversed(range(L)) if reverse else range(L):
            accs = (int(a[0, m]) * re - int(a[1, m]) * im, int(a[0, m]) * im + int(a[1, m]) * re)
            rounded = [(acc * M_step + (1 << (shift - 1))) >> shift for acc in accs]
            re, im = (
                min(max(r + int(b[k, 0, i]), -high), high) for r, i in zip(rounded, (m, m + M), strict=True)
            )
            out[k, 0, m], out[k, 0, m + M] = re, im
    return out


def test_gradient_of_the_integer_recurrence_is_that_of_the_float_one_at_its_states(
    rng: np.random.Generator,
) -> None:
    """Where rounding is fine enough to be invisible, both gradients agree to its size."""
    from qs5.model.discretize import Complex
    from qs5.model.recurrence import scan_sequential

    L, M, step = 30, 4, 2.0**-13
    a = (rng.uniform(-0.6, 0.6, (2, M)) * 2**15).round()
    b = jnp.asarray((rng.normal(size=(L, 2, 2 * M)) * 0.1 / step).round() * step, jnp.float32)
    reals = jnp.asarray(a / 2**15, jnp.float32)
    ints = _rotation(a, M=1, shift=15, step=np.full(2 * M, step, np.float32))
    x0 = jnp.zeros((2, 2 * M))

    def exact(re: jax.Array, im: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(ops.exact_recurrence(re[None], im[None], b, x0, ints, 15, 32767, False)))

    def real(re: jax.Array, im: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(scan_sequential(Complex(re, im), b, x0)))

    for got, expected in zip(
        *(jax.jit(jax.grad(f, (0, 1, 2)))(*reals, b) for f in (exact, real)), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=5e-3, atol=5e-3)
