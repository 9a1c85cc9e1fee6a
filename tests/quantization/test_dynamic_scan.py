"""The quantized scan, in JAX and in C++, against the same tree in Python lists and float64, one sequence at a time."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.grades import graded
from tests.quantization.dynamic_oracle import Quantizer, pack, prefix, unpack

from qs5.kernels import native
from qs5.model.discretize import Complex
from qs5.model.recurrence import scan_oracle, scan_sequential
from qs5.numerics.formats import RangeRule
from qs5.quantization.dynamic_scan import ScanFormat, Tree, quantized_scan, tree_jax, tree_native

# float32 against float64, for states of order 1.
STATE_TOLERANCE = 1e-5
# Sums over steps and sequences in another order.
GRADIENT_TOLERANCE = 1e-5
# In steps: float32 cannot round to another integer than float64 does.
TIE_MARGIN = 2e-4

M, BATCH = 4, 2
LENGTHS = (1, 2, 3, 5, 8, 13)


@pytest.fixture(params=[tree_jax, tree_native], ids=["jax", "native"])
def tree(request: pytest.FixtureRequest) -> Tree:
    """What computes the tree."""
    if request.param is tree_native and not native.available():
        pytest.skip("no native kernels")
    return request.param


def scan_format(
    a_bits: int | None, state_bits: int | None, rule: RangeRule = "aqt", *, quantized_backward: bool = False
) -> ScanFormat:
    return ScanFormat(a_bits=a_bits, state_bits=state_bits, rule=rule, quantized_backward=quantized_backward)


def problem(L: int, seed: int = 13) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a (M,), b (L, BATCH, M), x0 (BATCH, M)), complex with float32 parts."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0.1, 3.0, M)
    a = rng.uniform(0.8, 1.0, M) * np.exp(1j * angle)
    b, x0 = (rng.normal(size=(*s, M)) + 1j * rng.normal(size=(*s, M)) for s in ((L, BATCH), (BATCH,)))
    return tuple(v.astype(np.complex64) for v in (a, b, x0))  # type: ignore[return-value]


def parts(a: np.ndarray) -> Complex:
    return Complex(jnp.asarray(np.real(a)), jnp.asarray(np.imag(a)))


def scan(
    tree: Tree,
    a: np.ndarray,
    b: np.ndarray,
    x0: np.ndarray | None,
    format: ScanFormat,
    *,
    reverse: bool = False,
) -> np.ndarray:
    run = jax.jit(lambda a, b, x0: quantized_scan(a, b, x0, format=format, reverse=reverse, tree=tree))
    return unpack(run(parts(a), pack(b), None if x0 is None else pack(x0)))


@pytest.mark.parametrize("L", LENGTHS)
def test_the_oracle_has_the_tree_of_associative_scan(L: int) -> None:
    """With an operation that is not associative, another tree gives other numbers."""
    x = np.random.default_rng(1).normal(size=L)

    def combine(i: Any, j: Any) -> Any:
        return 0.7 * i + 1.3 * j + 0.1 * i * j

    scan = jax.jit(lambda x: jax.lax.associative_scan(combine, x))
    expected = scan(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(prefix(list(x), combine), expected, rtol=STATE_TOLERANCE)


FORMATS: tuple[tuple[int, int | None, RangeRule], ...] = (
    (8, 8, "aqt"),
    (4, 8, "aqt"),
    (2, 8, "paper"),
    (8, None, "paper"),
)


def _cases() -> list[Any]:
    """Every length and every format, by turns; the full product is slow."""
    quick = {(L, FORMATS[i % len(FORMATS)]) for i, L in enumerate(reversed(LENGTHS))}
    product = itertools.product(LENGTHS, FORMATS)
    return [pytest.param(L, *f, marks=() if (L, f) in quick else pytest.mark.slow) for L, f in product]


@pytest.mark.parametrize(("L", "a_bits", "state_bits", "rule"), _cases())
def test_states_equal_the_oracle(
    tree: Tree, L: int, a_bits: int, state_bits: int | None, rule: RangeRule
) -> None:
    a, b, _ = problem(L)
    oracle = Quantizer(rule)
    expected = oracle.states(a, b, a_bits, state_bits)
    assert oracle.closest > TIE_MARGIN, "the data lies on a tie: choose another seed"
    got = scan(tree, a, b, None, scan_format(a_bits, state_bits, rule))
    np.testing.assert_allclose(got, expected, rtol=STATE_TOLERANCE, atol=STATE_TOLERANCE)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantizing_changes_the_states(tree: Tree, bits: int) -> None:
    """The comparison with the oracle could not pass with float products."""
    a, b, _ = problem(13)
    difference = np.abs(scan(tree, a, b, None, scan_format(bits, bits)) - scan_oracle(a, b)).max()
    assert difference > 100 * STATE_TOLERANCE


def test_the_reverse_scan_is_the_scan_of_the_reversed_sequence(tree: Tree) -> None:
    a, b, _ = problem(7)
    got = scan(tree, a, b, None, scan_format(8, 8), reverse=True)
    expected = Quantizer("aqt").states(a, b[::-1], 8, 8)[::-1]
    np.testing.assert_allclose(got, expected, rtol=STATE_TOLERANCE, atol=STATE_TOLERANCE)


@pytest.mark.parametrize("reverse", [False, True])
def test_an_initial_state_enters_the_first_step_by_a_quantized_product(tree: Tree, reverse: bool) -> None:
    a, b, x0 = problem(5)
    oracle, entered = Quantizer("aqt"), b.astype(np.complex128)
    for n in range(BATCH):
        entered[-1 if reverse else 0, n] += oracle.complex_product(a, x0[n], 4, 8)
    order = slice(None, None, -1) if reverse else slice(None)
    expected = oracle.states(a, entered[order], 4, 8)[order]
    assert oracle.closest > TIE_MARGIN
    got = scan(tree, a, b, x0, scan_format(4, 8), reverse=reverse)
    np.testing.assert_allclose(got, expected, rtol=STATE_TOLERANCE, atol=STATE_TOLERANCE)


@pytest.mark.parametrize(
    ("L", "reverse"),
    graded([(13, True), (2, False), (1, True), (13, False), (2, True), (1, False)], quick=3, slow=3),
)
def test_without_bits_it_is_the_recurrence(tree: Tree, L: int, reverse: bool) -> None:
    a, b, x0 = problem(L)
    got = scan(tree, a, b, x0, scan_format(None, None), reverse=reverse)
    expected = scan_oracle(a, b, x0, reverse=reverse)
    np.testing.assert_allclose(got, expected, rtol=STATE_TOLERANCE, atol=STATE_TOLERANCE)


def test_sequences_do_not_share_scales(tree: Tree) -> None:
    a, b, _ = problem(8)
    louder = b.copy()
    louder[:, 1] *= 1000
    got, alone = (scan(tree, a, v, None, scan_format(8, 8)) for v in (louder, b))
    np.testing.assert_array_equal(got[:, 0], alone[:, 0])
    assert np.abs(got[:, 1] - alone[:, 1]).max() > 1.0


def gradients(run: Any, *inputs: Any) -> list[np.ndarray]:
    """Of sum(weights * run(*inputs)), for fixed random weights."""
    weights = np.random.default_rng(5).normal(size=(inputs[1].shape)).astype(np.float32)
    loss = lambda *args: jnp.sum(weights * run(*args))  # noqa: E731
    found = jax.jit(jax.grad(loss, argnums=tuple(range(len(inputs)))))(*inputs)
    return [np.asarray(v) for v in jax.tree.leaves(found)]


def test_without_bits_the_gradient_is_that_of_the_recurrence(tree: Tree) -> None:
    a, b, x0 = problem(13)
    inputs = parts(a), jnp.asarray(pack(b)), jnp.asarray(pack(x0))
    got = gradients(
        lambda a, b, x0: quantized_scan(a, b, x0, format=scan_format(None, None), reverse=False, tree=tree),
        *inputs,
    )
    for mine, theirs in zip(got, gradients(scan_sequential, *inputs), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=GRADIENT_TOLERANCE, atol=GRADIENT_TOLERANCE)


def test_the_gradient_goes_straight_through(tree: Tree) -> None:
    """L = 2 by hand: x_1 = b_1, x_2 = Q(a) * Q(b_1) + b_2."""
    a, b, _ = problem(2)
    got = gradients(
        lambda a, b: quantized_scan(a, b, None, format=scan_format(4, 8), reverse=False, tree=tree),
        parts(a),
        jnp.asarray(pack(b)),
    )
    g = unpack(np.random.default_rng(5).normal(size=(2, BATCH, 2 * M)).astype(np.float32))
    Q = Quantizer("aqt")
    a_q = Q.tensor(np.real(a), 4) + 1j * Q.tensor(np.imag(a), 4)
    b_q = np.stack([Q.tensor(np.real(v), 8) + 1j * Q.tensor(np.imag(v), 8) for v in b[0]])
    da = np.sum(b_q.conj() * g[1], axis=0)
    db = np.stack([g[0] + a_q.conj() * g[1], g[1]])
    for mine, theirs in zip(got, (da.real, da.imag, pack(db)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=GRADIENT_TOLERANCE, atol=GRADIENT_TOLERANCE)
