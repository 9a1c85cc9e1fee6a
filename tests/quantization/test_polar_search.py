"""The search for polar codes, against all rows of codes where there are few, and against what can be said exactly."""

import itertools

import numpy as np
import pytest

from qs5.numerics.polar import TURN, LogScale
from qs5.quantization.polar_search import encode, search


def _spread(M: int, seed: int) -> np.ndarray:
    """Eigenvalues like those of a trained layer: decays over two decades, angles dense near 0, sorted."""
    rng = np.random.default_rng(seed)
    angle = np.sort(np.pi * rng.random(M) ** 2)
    return np.exp(-(10 ** rng.uniform(-3, -1, M)) + 1j * angle)


def _decoded(eigenvalues: np.ndarray, bits: int) -> np.ndarray:
    re, im = encode(eigenvalues, bits=bits).operands()
    return (re + 1j * im.astype(float)) / 2**15


@pytest.mark.parametrize("seed", range(5))
def test_wide_beam_finds_the_best_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle, decay = np.sort(rng.random(6)) / 2, rng.uniform(0.001, 0.01, 6)
    scale = LogScale(bits=2, mantissa=0, unit=TURN // 40)
    errors = {
        row: float(np.sum(np.square((np.cumsum(scale.steps[list(row)]) / TURN - angle) / decay)))
        for row in itertools.product(range(4), repeat=6)
    }
    best = min(errors, key=lambda row: errors[row])
    path = search(angle, decay, scale, beam=4**6)
    assert path.error == pytest.approx(errors[best], rel=1e-12)
    assert errors[tuple(path.codes.tolist())] == pytest.approx(errors[best], rel=1e-12)


def test_wider_beams_are_no_worse() -> None:
    z = _spread(96, 0)
    angle, decay = np.angle(z) / (2 * np.pi), -np.log(np.abs(z)) / (2 * np.pi)
    scale = LogScale(bits=4, mantissa=1, unit=TURN // 10_000)
    errors = [search(angle, decay, scale, beam=n).error for n in (1, 96)]
    assert errors[1] < 0.7 * errors[0]


def test_steps_of_a_scale_are_found_again() -> None:
    scale, rng = LogScale(bits=4, mantissa=1, unit=2**20), np.random.default_rng(1)
    codes = rng.integers(0, 16, 40)
    angle = np.cumsum(scale.steps[codes]) / TURN
    assert search(angle, np.full(40, 0.01), scale, beam=1).codes.tolist() == codes.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_more_bits_come_nearer(seed: int) -> None:
    """Error of the eigenvalue in units of the decay, over widths: it falls by about two a bit and is small at 8."""
    z = _spread(128, seed)
    errors = [float(np.mean(np.abs(_decoded(z, n) - z) / -np.log(np.abs(z)))) for n in (2, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.5
    assert errors[3] < 0.05


def test_nearest_decay_is_taken() -> None:
    z = _spread(64, 4)
    codes = encode(z, bits=4)
    grid = -np.log1p(-codes.decay_scale.decays / TURN)
    distance = np.abs(np.log(-np.log(np.abs(z)))[:, None] - np.log(grid)[None, :])
    chosen = distance[np.arange(64), codes.decays]
    np.testing.assert_allclose(chosen, distance.min(axis=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("z", [np.ones(1), -np.ones(3) * 0.5, np.full(4, 1.5 + 0j), np.zeros(2) + 0j])
def test_odd_eigenvalues_have_codes(z: np.ndarray) -> None:
    """One mode, angles of pi, unstable ones and zeros: decoded inside the unit circle."""
    assert np.all(np.abs(_decoded(z.astype(complex), 4)) < 1)


def test_impossible_widths_are_refused() -> None:
    for bits in (1, 9):
        with pytest.raises(ValueError, match="2 to 8 bits"):
            encode(np.ones(2) * 0.5 + 0j, bits=bits)
