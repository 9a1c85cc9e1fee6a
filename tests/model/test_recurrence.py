"""The three ways to compute the recurrence agree, values and gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from qs5.kernels import native
from qs5.model import recurrence
from qs5.model.discretize import Complex
from qs5.model.recurrence import scan_associative, scan_native, scan_oracle, scan_sequential

# float32 against complex128, relative to the largest state: 10^3 additions, a slowest mode of |a| = 0.999.
STATE_TOLERANCE = 1e-5
# float64 on both sides; only the order of the sums differs. Relative to the largest entry.
GRADIENT_TOLERANCE = 1e-12

B, M = 2, 3
Scan = Callable[..., jax.Array]
SCANS: list[Scan] = [scan_sequential, scan_associative]
if native.available():
    SCANS.append(scan_native)


def packed(z: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """Complex (..., M) as real (..., 2M)."""
    return np.concatenate([np.real(z), np.imag(z)], axis=-1).astype(dtype)


def problem(L: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a (M,) a fast, a medium and a slow mode; b (L, B, M); x0 (B, M); rounded to float32."""
    rng = np.random.default_rng(L)
    a = np.array([0.3, 0.9, 0.999]) * np.exp(1j * np.array([2.0, -0.7, 0.01]))
    b, x0 = (rng.normal(size=(*s, M)) + 1j * rng.normal(size=(*s, M)) for s in ((L, B), (B,)))
    return a.astype(np.complex64), b.astype(np.complex64), 5.0 * x0.astype(np.complex64)


def pair(a: np.ndarray, dtype: Any = np.float32) -> Complex:
    return Complex(jnp.asarray(np.real(a), dtype), jnp.asarray(np.imag(a), dtype))


def assert_close(got: Any, expected: Any, tolerance: float) -> None:
    assert np.shape(got) == np.shape(expected)
    np.testing.assert_allclose(got, expected, rtol=0.0, atol=tolerance * np.abs(expected).max())


@partial(jax.jit, static_argnums=0)
def all_ways(scan: Scan, a: Complex, b: jax.Array, x0: jax.Array) -> dict[tuple[bool, bool], jax.Array]:
    """States by (reverse, carried)."""
    starts = {False: None, True: x0}
    return {
        (reverse, carried): scan(a, b, start, reverse=reverse)
        for reverse in (False, True)
        for carried, start in starts.items()
    }


@pytest.mark.parametrize("L", [1, 2, 3, 784, 1023])
@pytest.mark.parametrize("scan", SCANS)
def test_scans_give_the_states_of_the_definition(scan: Scan, L: int):
    a, b, x0 = problem(L)
    got = all_ways(scan, pair(a), jnp.asarray(packed(b)), jnp.asarray(packed(x0)))
    for (reverse, carried), states in got.items():
        expected = scan_oracle(a, b, x0 if carried else None, reverse=reverse)
        assert_close(states, packed(expected, np.float64), STATE_TOLERANCE)


def test_oracle_by_hand():
    a, b, x0 = np.array([2.0 + 1j]), np.array([1.0, 1j, 3.0]).reshape(3, 1, 1), np.array([[1j]])
    np.testing.assert_array_equal(scan_oracle(a, b)[:, 0, 0], [1, 2 + 2j, 5 + 6j])
    np.testing.assert_array_equal(scan_oracle(a, b, x0)[:, 0, 0], [2j, -2 + 5j, -6 + 8j])
    np.testing.assert_array_equal(scan_oracle(a, b, reverse=True)[:, 0, 0], [9 + 14j, 6 + 4j, 3])
    np.testing.assert_array_equal(scan_oracle(a, b, x0, reverse=True)[-1, 0, 0], 2 + 2j)


def scan_plain(a: Complex, b: jax.Array, x0: jax.Array | None = None, *, reverse: bool = False) -> jax.Array:
    """The definition as a lax.scan over complex numbers, differentiated by JAX."""
    A = lax.complex(a.re, a.im)[None, :]

    def step(x: jax.Array, b_k: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = A * x + lax.complex(b_k[:, :M], b_k[:, M:])
        return x, jnp.concatenate([x.real, x.imag], axis=-1)

    start = jnp.zeros_like(b[0]) if x0 is None else x0
    return lax.scan(step, lax.complex(start[:, :M], start[:, M:]), b, reverse=reverse)[1]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("L", [1, 6])
def test_hand_written_gradient_is_that_of_autodiff(L: int, reverse: bool):
    with jax.enable_x64(True):
        a, b, x0 = problem(L)
        weights = np.random.default_rng(1).normal(size=(L, B, 2 * M))
        inputs = (pair(a, np.float64), *(jnp.asarray(packed(z, np.float64)) for z in (b, x0)))

        def gradient(scan: Scan) -> list[jax.Array]:
            def loss(a: Complex, b: jax.Array, x0: jax.Array) -> jax.Array:
                x = scan(a, b, x0, reverse=reverse)
                # Not linear in the states, so that the cotangents depend on them.
                return jnp.sum(weights * x + 0.1 * x * x)

            return jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*inputs))

        mine = gradient(scan_sequential)
        assert [g.shape for g in mine] == [(M,), (M,), (L, B, 2 * M), (B, 2 * M)]
        for other in (scan_plain, scan_associative):
            for got, expected in zip(mine, gradient(other), strict=True):
                assert got.dtype == np.float64
                assert_close(got, expected, GRADIENT_TOLERANCE)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("scan", SCANS)
def test_chunks_with_a_carried_state_give_the_whole(scan: Scan, reverse: bool):
    a, b, x0 = problem(16)
    run = jax.jit(partial(scan, pair(a), reverse=reverse))
    whole = run(packed(b), packed(x0))
    first, second = (b[8:], b[:8]) if reverse else (b[:8], b[8:])
    begin = run(packed(first), packed(x0))
    end = run(packed(second), begin[0 if reverse else -1])
    parts = [end, begin] if reverse else [begin, end]
    assert_close(np.concatenate(parts), np.asarray(whole), STATE_TOLERANCE)
    # The order of the operations is that of the whole, hence the bits.
    if scan is scan_sequential:
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def halve(x: jax.Array, parameters: tuple[jax.Array, ...]) -> jax.Array:
    return parameters[0] * x


def test_step_quantizer_is_applied_at_every_step_and_passes_gradients_through():
    a, b, x0 = problem(3)
    half = (jnp.asarray(0.5),)

    def states(a: Complex, b: jax.Array, x0: jax.Array, parameters: tuple[jax.Array, ...]) -> jax.Array:
        return scan_sequential(a, b, x0, quantize=halve, parameters=parameters)

    inputs = (pair(a), jnp.asarray(packed(b)), jnp.asarray(packed(x0)))
    # Q(a x + b) with Q halving is the recurrence of a/2 and b/2.
    expected = scan_oracle(a / 2, b / 2, x0)
    got, pull_back = jax.vjp(states, *inputs, half)
    assert_close(got, packed(expected, np.float64), STATE_TOLERANCE)
    cotangent = jnp.ones_like(got)
    _, d_b, d_x0, d_half = pull_back(cotangent)
    plain = jax.vjp(lambda b, x0: scan_plain(inputs[0], b, x0), *inputs[1:])[1](cotangent)
    assert_close(d_b, np.asarray(plain[0]), STATE_TOLERANCE)
    assert_close(d_x0, np.asarray(plain[1]), STATE_TOLERANCE)
    assert float(d_half[0]) == 0.0


@pytest.mark.parametrize(
    ("backend", "scan"), [("cpu", scan_sequential), ("gpu", scan_associative), ("tpu", scan_associative)]
)
def test_default_follows_the_backend(backend: str, scan: Scan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.VARIABLE, "0")
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert recurrence.default_scan() is scan


@pytest.mark.skipif(not native.available(), reason="no native kernels")
def test_default_on_cpu_is_native_in_float32():
    assert recurrence.default_scan() is scan_native
    assert recurrence.default_scan(jnp.dtype("float64")) is scan_sequential
