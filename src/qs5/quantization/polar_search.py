"""From real eigenvalues to polar codes (`qs5.numerics.polar`): scales and codes of least error. NumPy only.

The impulse response of a mode dies after about 1/a steps, a = -log|lambda|, so an error in log(lambda) counts in
units of a. With r = |lambda| and phi the angle, both chosen on their own:

    decays:  minimize sum_k (log a'_k - log a_k)^2
    angles:  minimize sum_k ((phi'_k - phi_k) / a_k)^2,   phi'_k = s(c_1) + ... + s(c_k)

The second is a shortest path through the codes, since every step moves all angles behind it. It is searched with a
beam; the nearest step at every mode (a beam of 1) leaves a larger error.
"""

from typing import NamedTuple

import numpy as np

from qs5.numerics.polar import MAX_CODE_BITS, MAX_UNIT, MIN_CODE_BITS, MIN_DECAY, TURN, LogScale, PolarCodes

BEAM = 96
SHORTLIST = 4
"""Scales of angles that are searched with the full beam: the best ones of a narrow beam."""
SMALLEST_DECAY = MIN_DECAY / TURN
_FINE = 2.0 ** (1 / 4)
"""Ratio of neighbouring units tried."""


def encode(eigenvalues: np.ndarray, *, bits: int) -> PolarCodes:
    """Codes of `bits` for the decays and `bits` for the angles.

    eigenvalues: (M,) complex, in the order of the modes. Good codes want them sorted by angle, 0 to pi
    (`qs5.quantization.modes.ordered`): angles below 0 are coded as 0, and no angle can be below the one before.
    Raises ValueError for bits that are not 2 to 8.
    """
    if not MIN_CODE_BITS <= bits <= MAX_CODE_BITS:
        raise ValueError(f"expected {MIN_CODE_BITS} to {MAX_CODE_BITS} bits, got {bits}")
    angle = np.maximum(np.angle(eigenvalues), 0.0)
    modulus = np.clip(np.abs(eigenvalues), 1e-6, 1.0 - SMALLEST_DECAY)
    decay_scale, decays = _decay_codes(1.0 - modulus, bits)
    angle_scale, angles = _angle_codes(angle / (2 * np.pi), -np.log(modulus) / (2 * np.pi), bits)
    return PolarCodes(decay_scale, angle_scale, tuple(decays.tolist()), tuple(angles.tolist()))


def _units(low: float, high: float) -> list[int]:
    """Units in a geometric row from low to high, in 1/TURN."""
    count = max(1, int(np.ceil(np.log(max(high / low, 1.0)) / np.log(_FINE))) + 1)
    found = np.rint(low * _FINE ** np.arange(count) * TURN).astype(np.int64)
    return sorted({int(np.clip(u, 1, MAX_UNIT)) for u in found})


# -- decays ------------------------------------------------------------------------------------------------------


def _decay_codes(v: np.ndarray, bits: int) -> tuple[LogScale, np.ndarray]:
    """The nearest decays of the scale of least error; v = 1 - |lambda|."""
    a = np.log(-np.log1p(-v))
    best: tuple[float, LogScale, np.ndarray] | None = None
    for mantissa in range(bits + 1):
        for unit in _units(v.min() / 2 ** (mantissa + 2), v.max() / 2**mantissa):
            scale = LogScale(bits=bits, mantissa=mantissa, unit=unit)
            grid = np.log(-np.log1p(-scale.decays / TURN))
            codes = np.argmin(np.abs(a[:, None] - grid[None, :]), axis=1)
            error = float(np.sum(np.square(grid[codes] - a)))
            if best is None or error < best[0]:
                best = error, scale, codes
    assert best is not None
    return best[1], best[2]


# -- angles ------------------------------------------------------------------------------------------------------


def _angle_codes(angle: np.ndarray, decay: np.ndarray, bits: int) -> tuple[LogScale, np.ndarray]:
    """The steps whose sums come nearest to the angles, in units of the decays; all in turns."""
    gap = max(float(np.max(np.diff(angle, prepend=0.0))), 1.0 / TURN)
    found = []
    for mantissa in range(bits + 1):
        top = LogScale(bits=bits, mantissa=mantissa, unit=1).steps.max()
        # The largest step covers the largest gap, or a part of it: several modes may share a long way.
        low = max(gap / 8, angle.max() / len(angle) / 2) / min(float(top), 2.0**30)
        for unit in _units(low, 16 * low):
            scale = LogScale(bits=bits, mantissa=mantissa, unit=unit)
            found.append((search(angle, decay, scale, beam=1).error, scale))
    shortlist = sorted(found, key=lambda pair: pair[0])[:SHORTLIST]
    paths = [(search(angle, decay, scale, beam=BEAM), scale) for _, scale in shortlist]
    path, scale = min(paths, key=lambda pair: pair[0].error)
    return scale, path.codes


class Path(NamedTuple):
    """A row of codes and its error: the sum of squares of angle errors over decays."""

    error: float
    codes: np.ndarray


def search(angle: np.ndarray, decay: np.ndarray, scale: LogScale, *, beam: int) -> Path:
    """The best row of codes that a beam of the given width finds. Exact for a beam as wide as all rows."""
    steps = scale.steps / TURN
    at, error = np.zeros(1), np.zeros(1)
    back: list[tuple[np.ndarray, np.ndarray]] = []
    for target, a in zip(angle, decay, strict=True):
        reached = (at[:, None] + steps[None, :]).ravel()
        total = np.repeat(error, len(steps)) + np.square((reached - target) / a)
        kept = _best(reached, total, beam)
        back.append((kept // len(steps), kept % len(steps)))
        at, error = reached[kept], total[kept]
    return Path(float(error.min()), _trace(back, int(np.argmin(error))))


def _best(reached: np.ndarray, total: np.ndarray, beam: int) -> np.ndarray:
    """Indices of the `beam` least totals, one for each angle reached."""
    if beam == 1:
        return np.argmin(total, keepdims=True)
    order = np.argsort(total, kind="stable")[: 8 * beam]
    _, first = np.unique(np.rint(reached[order] * TURN), return_index=True)
    return order[np.sort(first)[:beam]]


def _trace(back: list[tuple[np.ndarray, np.ndarray]], last: int) -> np.ndarray:
    """The codes on the way to entry `last` of the last step."""
    codes = []
    for parent, code in reversed(back):
        codes.append(code[last])
        last = int(parent[last])
    return np.asarray(codes[::-1])
