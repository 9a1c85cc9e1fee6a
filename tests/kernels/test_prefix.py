"""The native prefix tree against the one in JAX: states and gradients, with every kind of grid."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qs5.kernels import native, prefix as kernel
from qs5.kernels.prefix import check_shapes, rows_of
from qs5.model.discretize import Complex
from qs5.quantization.dynamic_scan import ScanFormat, Tree, quantized_scan, tree_jax, tree_native

pytestmark = pytest.mark.skipif(not native.available(), reason="no native kernels")

TOLERANCE = 3e-6
"""float32, relative to the largest element: the same operations, sums in another order. A number that rounds to the
other side of a tie would differ by a step, which is a hundred times more at the least: the seeds have none."""

SIZES = [(1, 1, 1), (2, 3, 5), (7, 16, 2), (13, 2, 4), (37, 17, 3), (40, 33, 1)]
"""(L, B, M): one level and many, sequences that fill blocks of 16 and that do not."""
FORMATS = [
    ScanFormat(a_bits=8, state_bits=8, rule="aqt", quantized_backward=False),
    ScanFormat(a_bits=8, state_bits=8, rule="aqt", quantized_backward=True),
    ScanFormat(a_bits=4, state_bits=8, rule="paper", quantized_backward=True),
    ScanFormat(a_bits=2, state_bits=4, rule="aqt", quantized_backward=True),
    ScanFormat(a_bits=1, state_bits=1, rule="aqt", quantized_backward=True),
    ScanFormat(a_bits=None, state_bits=8, rule="aqt", quantized_backward=True),
    ScanFormat(a_bits=8, state_bits=None, rule="aqt", quantized_backward=True),
]


def _problem(L: int, B: int, M: int) -> tuple[Complex, jax.Array]:
    rng = np.random.default_rng(L + 7)
    radius, angle = rng.uniform(0.6, 0.999, M), rng.uniform(0.0, 6.28, M)
    a = Complex(*(jnp.asarray(radius * f(angle), jnp.float32) for f in (np.cos, np.sin)))
    return a, jnp.asarray(rng.normal(size=(L, B, 2 * M)), jnp.float32)


def _probe(tree: Tree, a: Complex, b: jax.Array, format: ScanFormat, reverse: bool) -> Any:
    """Loss, states, and gradients of a and b."""
    weights = jnp.asarray(np.random.default_rng(3).normal(size=b.shape), jnp.float32)

    def loss(a: Complex, b: jax.Array) -> Any:
        states = quantized_scan(a, b, None, format=format, reverse=reverse, tree=tree)
        return jnp.sum(states * weights), states

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(a, b)


def _assert_close(mine: Any, theirs: Any) -> None:
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=TOLERANCE * float(jnp.max(jnp.abs(b))))


def _cases() -> list[Any]:
    """Every size and every format at least once; the full product is slow."""
    everything = list(itertools.product(SIZES, FORMATS, (False, True)))
    quick = [(SIZES[i % len(SIZES)], FORMATS[i % len(FORMATS)], bool(i % 2)) for i in range(len(FORMATS))]
    return [
        pytest.param(
            *case, marks=() if case in quick else pytest.mark.slow, id="-".join(map(str, _name(case)))
        )
        for case in everything
    ]


def _name(case: tuple[Any, ...]) -> tuple[Any, ...]:
    (L, B, M), f, reverse = case
    return L, B, M, f.a_bits, f.state_bits, f.rule, f.quantized_backward, reverse


@pytest.mark.parametrize(("size", "format", "reverse"), _cases())
def test_states_and_gradients(size: tuple[int, int, int], format: ScanFormat, reverse: bool) -> None:
    a, b = _problem(*size)
    _assert_close(*(_probe(tree, a, b, format, reverse) for tree in (tree_native, tree_jax)))


def test_quantized_gradients_are_others() -> None:
    """The comparison could not pass with gradients of float products."""
    a, b = _problem(13, 2, 4)
    rounded, plain = (_probe(tree_native, a, b, f, False)[1] for f in (FORMATS[1], FORMATS[0]))
    for mine, theirs in zip(jax.tree.leaves(rounded), jax.tree.leaves(plain), strict=True):
        assert np.abs(mine - theirs).max() > 100 * TOLERANCE * np.abs(theirs).max()


def test_models_side_by_side() -> None:
    """Under vmap, as models are trained together."""
    a, b = _problem(13, 2, 4)
    both = Complex(*(jnp.stack([part, 0.9 * part]) for part in a)), jnp.stack([b, 2.0 * b[::-1]])

    def states(a: Complex, b: jax.Array) -> jax.Array:
        return quantized_scan(a, b, None, format=FORMATS[1], reverse=False, tree=tree_native)

    together = jax.jit(jax.vmap(states))(*both)
    for i in range(2):
        np.testing.assert_array_equal(together[i], states(*jax.tree.map(lambda v, i=i: v[i], both)))


def test_a_state_that_is_not_a_number_is_seen() -> None:
    a, b = _problem(7, 16, 2)
    states = tree_native(a, b.at[3, 5, 1].set(jnp.nan), FORMATS[0], False)
    assert np.isnan(states[3:, 5]).any(axis=-1).all()
    assert np.isfinite(np.delete(states, 5, axis=1)).all()


@pytest.mark.parametrize(("L", "rows"), [(1, 1), (2, 3), (5, 8), (8, 15), (784, 1565)])
def test_rows_of_a_tree(L: int, rows: int) -> None:
    assert rows_of(L) == rows


def test_shapes_are_checked() -> None:
    a, b = jnp.zeros(4), jnp.zeros((3, 2, 4))
    check_shapes(a, b)
    for wrong in ((a[:2], b), (a, b[:0]), (a[:3], b[..., :3]), (a, b[0]), (a, b.astype(jnp.int32))):
        with pytest.raises(ValueError, match=r"expected float32 a \(S,\)"):
            check_shapes(*wrong)


def test_what_was_kept_for_other_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree over 7 steps has 11 elements; with the 7 states, of 4 numbers, for 2 blocks of 16 sequences."""
    a, b = _problem(7, 17, 2)
    options = kernel.PrefixOptions(False, *(kernel.PrefixGrid() for _ in range(4)))
    packed = jnp.concatenate([a.re, a.im])
    kernel._forward(options, packed, b, save=True)
    monkeypatch.setattr(kernel, "BLOCK", 8)
    with pytest.raises(jax.errors.JaxRuntimeError, match="saved: expected 2304 elements, got 1728"):
        jax.block_until_ready(kernel._forward(options, packed, b, save=True))
