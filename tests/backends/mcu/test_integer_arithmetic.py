"""Integer arithmetic in C equals the NumPy definition on every core; SMLAD and MVE equal plain C where they exist."""

from pathlib import Path

import numpy as np

from qs5.backends.mcu import Core, c_array, run_on
from qs5.numerics.multiplier import MAX_SHIFT, FixedPointMultiplier, requantize

VECTORS = 200
HIGH = 32767
DOT_LENGTH = 63  # odd, and no multiple of eight lanes: every tail occurs


def _vectors(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    text = "".join(c_array(name, values) for name, values in arrays.items())
    (folder / "vectors.h").write_text(f"#include <stdint.h>\n{text}")
    return folder


def _multipliers(rng: np.random.Generator) -> tuple[np.ndarray, FixedPointMultiplier]:
    """Accumulators of all magnitudes, the extreme ones, and halves; multipliers and shifts over their ranges."""
    acc = rng.integers(-(2**31) + 1, 2**31, VECTORS) >> rng.integers(0, 31, VECTORS)
    M, shift = rng.integers(2**14, 2**15, VECTORS), rng.integers(1, MAX_SHIFT + 1, VECTORS)
    acc[:6] = [2**31 - 1, -(2**31) + 1, 0, 1, -1, -3]
    M[2:6], shift[2:6] = 2**14, 15
    M[:2], shift[:2] = 2**15 - 1, 30
    return acc, FixedPointMultiplier(M, shift)


def test_requantization_equals_its_definition(
    core: Core, rng: np.random.Generator, programs: Path, tmp_path: Path
) -> None:
    acc, m = _multipliers(rng)
    include = _vectors(
        tmp_path / "include",
        acc=acc.astype(np.int32),
        multiplier=m.M.astype(np.int32),
        shift=m.shift.astype(np.int32),
    )
    report = run_on(core, [programs / "requantize.c"], folder=tmp_path, include=[include])
    expected = requantize(acc, m, low=-HIGH, high=HIGH)
    assert np.count_nonzero(np.abs(expected) < HIGH) > VECTORS // 2
    np.testing.assert_array_equal(report.rows("result"), expected[None])


def test_dot_products_agree(core: Core, rng: np.random.Generator, programs: Path, tmp_path: Path) -> None:
    x, y = rng.integers(-5000, 5001, (2, DOT_LENGTH)).astype(np.int16)
    include = _vectors(tmp_path / "include", x=x, y=y)
    report = run_on(core, [programs / "dot.c"], folder=tmp_path, include=[include])
    expected = np.cumsum(x.astype(np.int64) * y)[:, None]
    assert report.rows("features").tolist() == [[core.has_dsp, core.has_mve]]
    variants = ["plain", *(["dsp"] if core.has_dsp else []), *(["mve"] if core.has_mve else [])]
    for variant in variants:
        np.testing.assert_array_equal(report.rows(variant), expected)
    counts = [report.costs(variant)[0].instructions for variant in variants]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == len(counts)
