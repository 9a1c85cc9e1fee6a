"""The native recurrence against `scan_sequential`: values and gradients; rounded states to the bit."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qs5.kernels import native
from qs5.kernels.scan import ScanArrays, check_shapes
from qs5.model.discretize import Complex
from qs5.model.recurrence import scan_native, scan_sequential
from qs5.quantization.static import _rounded_scan

pytestmark = pytest.mark.skipif(not native.available(), reason="no native kernels")

TOLERANCE = 2e-6
"""float32, relative to the largest element: the same operations, sums over time in another order."""

optimized = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})
"""XLA's default, whatever the environment says: it then rounds `a x + b` once, as the kernels do."""

SIZES = [(1, 1, 1), (2, 1, 3), (3, 5, 16), (17, 2, 7), (50, 5, 33)]
"""(L, B, M)"""


def _problem(L: int, B: int, M: int) -> tuple[Complex, jax.Array, jax.Array]:
    """Lambda-bar on a 16-bit grid, inputs, initial state."""
    rng = np.random.default_rng(L)
    radius, angle = rng.uniform(0.6, 0.999, M), rng.uniform(0.0, 6.28, M)
    parts = (np.round(radius * f(angle) * 2**15) / 2**15 for f in (np.cos, np.sin))
    a = Complex(*(jnp.asarray(v, jnp.float32) for v in parts))
    b, x0 = (jnp.asarray(rng.normal(size=(*s, 2 * M)), jnp.float32) for s in ((L, B), (B,)))
    return a, b, x0


def _assert_close(mine: Any, theirs: Any) -> None:
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=TOLERANCE * float(jnp.max(jnp.abs(b))))


def _by_turns(*choices: tuple[Any, ...]) -> list[Any]:
    """Every size, and every choice of each kind, by turns; the full product is slow."""
    product = list(itertools.product(SIZES, *choices))
    quick = [(size, *(kind[i % len(kind)] for kind in choices)) for i, size in enumerate(SIZES)]
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in product]


@pytest.mark.parametrize(("size", "reverse"), _by_turns((False, True)))
def test_values_and_gradients(size: tuple[int, int, int], reverse: bool) -> None:
    inputs = _problem(*size)

    def probe(scan: Any) -> Any:
        def loss(a: Complex, b: jax.Array, x0: jax.Array) -> Any:
            states = scan(a, b, x0, reverse=reverse)
            return jnp.sum(jnp.sin(states)), states

        return optimized(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*inputs)

    _assert_close(probe(scan_native), probe(scan_sequential))


@pytest.mark.parametrize(
    ("size", "grid", "reverse"), _by_turns(((16, -12), (8, -3), (24, -18)), (False, True))
)
def test_rounded_states_to_the_bit(size: tuple[int, int, int], grid: tuple[int, int], reverse: bool) -> None:
    a, b, x0 = _problem(*size)
    bits, exponent = grid
    step = jnp.exp2(exponent - jnp.arange(2.0 * size[2]) % 3.0)
    high = 2 ** (bits - 1) - 1

    def native_scan(a: Complex, b: jax.Array, x0: jax.Array) -> jax.Array:
        return scan_native(a, b, x0, reverse=reverse, step=step, high=float(high))

    def composed(a: Complex, b: jax.Array, x0: jax.Array) -> jax.Array:
        return _rounded_scan(a, b, x0, step=step, high=high, reverse=reverse)

    mine, theirs = (optimized(f)(a, b, x0) for f in (native_scan, composed))
    np.testing.assert_array_equal(mine, theirs)
    gradients = [
        optimized(jax.grad(lambda *v, f=f: jnp.sum(jnp.sin(f(*v))), (0, 1, 2)))(a, b, x0)
        for f in (native_scan, composed)
    ]
    _assert_close(*gradients)


def test_arrays_that_do_not_fit_are_refused() -> None:
    sizes = {"a": (4,), "v": (3, 2, 4), "x0": (2, 4), "step": (0,), "high": (1,)}
    arrays = ScanArrays(**{name: jnp.zeros(shape) for name, shape in sizes.items()})
    check_shapes(arrays)
    for name in ("a", "x0", "step", "high"):
        with pytest.raises(ValueError, match="expected float32 a"):
            check_shapes(arrays._replace(**{name: jnp.zeros((9,))}))
