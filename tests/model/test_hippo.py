"""Properties of HiPPO-N that hold whatever the numbers (those are in test_initialisation_golden.py)."""

import numpy as np
import pytest

from qs5.model.hippo import hippo_n, hippo_normal

# float64 eigenvalues of size 10^2.
TOLERANCE = 1e-10


def test_normal_part_is_minus_a_half_plus_a_skew_symmetric_matrix():
    S = hippo_normal(8) + 0.5 * np.eye(8)
    np.testing.assert_allclose(S, -S.T, atol=TOLERANCE)
    # The first entries by hand: S[1, 0] = -sqrt(3) + sqrt(1/2 * 3/2).
    np.testing.assert_allclose(S[1, 0], -np.sqrt(3.0) / 2, atol=TOLERANCE)


@pytest.mark.parametrize(("P", "J"), [(16, 1), (16, 4), (12, 3)])
def test_eigenpairs_rebuild_the_block_diagonal_matrix(P: int, J: int):
    whole = hippo_n(P=P, J=J, conj_sym=False)
    rebuilt = whole.V @ np.diag(whole.Lambda) @ whole.Vinv
    block = P // J
    expected = np.kron(np.eye(J), hippo_normal(block))
    np.testing.assert_allclose(rebuilt, expected, atol=TOLERANCE)
    np.testing.assert_allclose(whole.V.conj().T @ whole.V, np.eye(P), atol=TOLERANCE)


@pytest.mark.parametrize(("P", "J"), [(16, 1), (16, 4), (12, 3)])
def test_conjugate_symmetry_keeps_one_of_each_pair(P: int, J: int):
    half, whole = hippo_n(P=P, J=J, conj_sym=True), hippo_n(P=P, J=J, conj_sym=False)
    assert half.Lambda.shape == (P // 2,)
    assert half.V.shape == (P, P // 2)
    assert half.Vinv.shape == (P // 2, P)
    np.testing.assert_allclose(np.real(half.Lambda), -0.5, atol=TOLERANCE)
    imag = np.imag(half.Lambda)
    assert (imag < 0).all()
    np.testing.assert_allclose(np.sort([*imag, *-imag]), np.sort(np.imag(whole.Lambda)), atol=TOLERANCE)
    # Twice the real part of the kept half is the real matrix.
    rebuilt = 2 * np.real(half.V @ np.diag(half.Lambda) @ half.Vinv)
    np.testing.assert_allclose(rebuilt, np.kron(np.eye(J), hippo_normal(P // J)), atol=TOLERANCE)


def test_blocks_are_copies_of_one():
    one, three = hippo_n(P=4, J=1, conj_sym=True), hippo_n(P=12, J=3, conj_sym=True)
    np.testing.assert_array_equal(three.Lambda, np.tile(one.Lambda, 3))
    for i in range(3):
        rows, columns = slice(4 * i, 4 * i + 4), slice(2 * i, 2 * i + 2)
        np.testing.assert_array_equal(three.V[rows, columns], one.V)
    assert np.count_nonzero(three.V) <= 3 * one.V.size
