"""Polar codes of eigenvalues: a decay and a step in angle, a few bits each, to 16-bit Cartesian operands. NumPy only.

The eigenvalues of a layer are sorted by angle, 0 to half a turn. Of each are stored a decay code d and an angle code a:

    v_k   = (2^m + f) 2^e unit           decay, with d = 2^m e + f: a logarithmic grid of 2^m values an octave
    s_k   = f unit if e = 0, else (2^m + f) 2^(e-1) unit, with a = 2^m e + f: zero, then the same
    phi_k = s_0 + ... + s_k               angle
    lambda_k = (1 - v_k 2^-32) exp(2 pi i phi_k 2^-32)

What `decode` returns is lambda in 1/32768, computed with integers alone (integer/SPEC.md, section 4.16).

Sorting is free, since a diagonal system may be written in any order of its modes, and it pays: the order of M modes
holds log2(M!) bits, 4.6 a mode for M = 64, that the angles then need not spell out. A decay of at least 2^-14 keeps
every eigenvalue inside the unit circle after rounding: no code is unstable.
"""

from dataclasses import dataclass

import numpy as np

from qs5.numerics.multiplier import rounding_shift

TURN = 2**32
"""Angles are in 1/TURN of a full turn, decays in 1/TURN of 1."""
MIN_DECAY = TURN >> 14
MAX_DECAY = TURN - 1
OPERAND_BITS = 16
"""Width of re and im as `decode` returns them: 1 is 2^15."""
MIN_CODE_BITS, MAX_CODE_BITS = 2, 8
MAX_UNIT = 2**31 - 1

# (cos, sin) of 2^-b turns in 2^-30, b = 1 .. 24.
_CIRCLE = (
    (-1073741824, 0),
    (0, 1073741824),
    (759250125, 759250125),
    (992008094, 410903207),
    (1053110176, 209476638),
    (1068571464, 105245103),
    (1072448455, 52686014),
    (1073418433, 26350943),
    (1073660973, 13176464),
    (1073721611, 6588356),
    (1073736771, 3294193),
    (1073740561, 1647099),
    (1073741508, 823550),
    (1073741745, 411775),
    (1073741804, 205887),
    (1073741819, 102944),
    (1073741823, 51472),
    (1073741824, 25736),
    (1073741824, 12868),
    (1073741824, 6434),
    (1073741824, 3217),
    (1073741824, 1608),
    (1073741824, 804),
    (1073741824, 402),
)


@dataclass(frozen=True)
class LogScale:
    """A logarithmic scale of 2^bits numbers: `mantissa` bits below each power of two, times `unit`."""

    bits: int
    mantissa: int
    unit: int

    def __post_init__(self) -> None:
        if not MIN_CODE_BITS <= self.bits <= MAX_CODE_BITS or not 0 <= self.mantissa <= self.bits:
            raise ValueError(
                f"expected codes of {MIN_CODE_BITS} to {MAX_CODE_BITS} bits, of which 0 to all are mantissa, got "
                f"{self.bits} and {self.mantissa}"
            )
        if not 1 <= self.unit <= MAX_UNIT:
            raise ValueError(f"expected a unit of 1 to {MAX_UNIT}, got {self.unit}")

    @property
    def decays(self) -> np.ndarray:
        """The decay of every code, int64 in MIN_DECAY .. MAX_DECAY."""
        code = np.arange(2**self.bits)
        numbers = (2**self.mantissa + self._fraction(code)) * 2.0 ** (code >> self.mantissa)
        return np.maximum(self._times_unit(numbers), MIN_DECAY)

    @property
    def steps(self) -> np.ndarray:
        """The step in angle of every code, int64: the first is 0."""
        code = np.arange(2**self.bits)
        octave, fraction = code >> self.mantissa, self._fraction(code)
        return self._times_unit(
            np.where(octave == 0, fraction, (2**self.mantissa + fraction) * 2.0 ** (octave - 1.0))
        )

    def _fraction(self, code: np.ndarray) -> np.ndarray:
        return code & (2**self.mantissa - 1)

    def _times_unit(self, numbers: np.ndarray) -> np.ndarray:
        # Exact: integers of at most 8 bits times a power of two, cut where they leave the range anyway.
        return np.minimum(np.minimum(numbers, float(TURN)).astype(np.int64) * self.unit, MAX_DECAY)


@dataclass(frozen=True)
class PolarCodes:
    """The eigenvalues of a layer in the order of its modes: codes of decay and of the step in angle. Hashable."""

    decay_scale: LogScale
    angle_scale: LogScale
    decays: tuple[int, ...]
    angles: tuple[int, ...]

    def operands(self) -> tuple[np.ndarray, np.ndarray]:
        """(re, im) of the eigenvalues, (M,) int16 in 2^-15."""
        decays, angles = np.asarray(self.decays, np.int64), np.asarray(self.angles, np.int64)
        return decode(decays=self.decay_scale.decays[decays], steps=self.angle_scale.steps[angles])


def decode(*, decays: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(re, im), (M,) int16 in 2^-15, of decays v (M,) and steps in angle s (M,), both int64 in 1/TURN."""
    re, im = _on_circle(np.cumsum(steps) % TURN)
    v = np.asarray(decays, np.int64)
    return _to_operand(re - rounding_shift(re * v, 32)), _to_operand(im - rounding_shift(im * v, 32))


def _on_circle(phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cos, sin) in 2^-30 of phases in 1/TURN: one rotation for each of the upper 24 bits that is set."""
    re, im = np.full(phase.shape, 2**30, np.int64), np.zeros(phase.shape, np.int64)
    for b, (c, s) in enumerate(_CIRCLE, start=1):
        turned = rounding_shift(re * c - im * s, 30), rounding_shift(re * s + im * c, 30)
        set_ = (phase >> (32 - b)) & 1 == 1
        re, im = np.where(set_, turned[0], re), np.where(set_, turned[1], im)
    return re, im


def _to_operand(x: np.ndarray) -> np.ndarray:
    high = 2 ** (OPERAND_BITS - 1) - 1
    return np.clip(rounding_shift(x, 15), -high, high).astype(np.int16)
