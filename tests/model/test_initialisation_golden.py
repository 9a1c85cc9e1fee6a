"""HiPPO-N and the random initialisation against the original code (tests/golden/README.md)."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from qs5.model.config import CInit, ModelConfig
from qs5.model.hippo import hippo_n
from qs5.model.network import S5Model, init_model

# float64 eigenvalues of size 10^3, relative; eigenvectors of N = 64 are stored in complex64.
EIGENVALUE_TOLERANCE = 1e-12
EIGENVECTOR_TOLERANCE = {8: 1e-12, 16: 1e-12, 64: 1e-6}
# Standard deviations are relative; the fewest numbers are the 512 step sizes.
STD_TOLERANCE = 0.15

with np.load(Path(__file__).parents[1] / "golden" / "lindermanlab.npz", allow_pickle=False) as archive:
    GOLDEN = {key: archive[key] for key in archive if key.startswith(("hippo/", "initialisation"))}
STATISTICS = json.loads(str(GOLDEN["initialisation.json"]))


def assert_same_up_to_phase(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Unit columns: |<got, expected>| = 1 in every column."""
    np.testing.assert_allclose(np.abs(np.sum(got.conj() * expected, axis=0)), 1.0, atol=tolerance)


@pytest.mark.parametrize("N", [8, 64])
def test_one_block_has_the_originals_eigenpairs(N: int):
    mine = hippo_n(P=N, J=1, conj_sym=False)
    V = GOLDEN[f"hippo/N{N}/V"]
    np.testing.assert_allclose(mine.Lambda, GOLDEN[f"hippo/N{N}/Lambda"], rtol=EIGENVALUE_TOLERANCE)
    assert_same_up_to_phase(mine.V[:, : V.shape[1]], V, EIGENVECTOR_TOLERANCE[N])


def test_two_blocks_with_conjugate_symmetry_are_the_originals():
    mine = hippo_n(P=16, J=2, conj_sym=True)
    Lambda, V = GOLDEN["hippo/P16_J2/Lambda"], GOLDEN["hippo/P16_J2/V"]
    np.testing.assert_allclose(mine.Lambda, Lambda, rtol=EIGENVALUE_TOLERANCE)
    assert_same_up_to_phase(mine.V, V, EIGENVECTOR_TOLERANCE[16])
    assert_same_up_to_phase(
        mine.Vinv.conj().T, GOLDEN["hippo/P16_J2/Vinv"].conj().T, EIGENVECTOR_TOLERANCE[16]
    )
    np.testing.assert_array_equal(mine.V == 0, V == 0)


@functools.cache
def initial_models(c_init: CInit) -> list[S5Model]:
    sizes = {key: STATISTICS[key] for key in ("H", "P", "J", "d_in", "d_out", "dt_min", "dt_max")}
    config = ModelConfig(**sizes, layers=1, c_init=c_init)
    return [init_model(jax.random.PRNGKey(seed), config) for seed in range(STATISTICS["seeds"])]


def assert_same_spread(arrays: list[jax.Array], expected: dict[str, float]) -> None:
    numbers = np.concatenate([np.ravel(array) for array in arrays])
    assert numbers.size == expected["count"]
    np.testing.assert_allclose(numbers.std(), expected["std"], rtol=STD_TOLERANCE, atol=1e-6)
    np.testing.assert_allclose(numbers.mean(), expected["mean"], atol=STD_TOLERANCE * expected["std"] + 1e-6)


@pytest.mark.parametrize("c_init", ["trunc_standard_normal", "lecun_normal", "complex_normal"])
def test_initial_C_spreads_like_the_originals(c_init: CInit):
    layers = [model.layers[0].ssm for model in initial_models(c_init)]
    assert_same_spread([s.C_re for s in layers], STATISTICS[c_init]["C_re"])
    assert_same_spread([s.C_im for s in layers], STATISTICS[c_init]["C_im"])


def test_other_initial_parameters_spread_like_the_originals():
    models = initial_models("trunc_standard_normal")
    for name in ("B_re", "B_im", "D", "log_step", "Lambda_re", "Lambda_im"):
        assert_same_spread([getattr(m.layers[0].ssm, name) for m in models], STATISTICS[name])
    assert_same_spread([m.encoder.weight for m in models], STATISTICS["encoder_kernel"])
    gates = [m.layers[0].gate for m in models]
    assert_same_spread([gate.weight for gate in gates if gate is not None], STATISTICS["out2_kernel"])
    assert_same_spread([m.decoder.weight for m in models], STATISTICS["decoder_kernel"])
    # log Delta is uniform between the two limits, and reaches close to both.
    steps = np.concatenate([m.layers[0].ssm.log_step for m in models])
    assert np.log(1e-3) <= steps.min() < np.log(1e-3) + 0.1
    assert np.log(1e-1) - 0.1 < steps.max() <= np.log(1e-1) + 1e-6
