"""Polar codes of eigenvalues: scales by hand; the decoder against real arithmetic and SPEC 4.16 in plain Python."""

import itertools
import math

import numpy as np
import pytest

from qs5.numerics.polar import MAX_DECAY, MIN_DECAY, TURN, LogScale, PolarCodes, decode

LSB = 1.0
"""Tolerance of an operand in units of its last bit: it is rounded three times."""


def test_scales_by_hand() -> None:
    one = LogScale(bits=3, mantissa=1, unit=2**20)
    assert (one.decays // 2**20).tolist() == [2, 3, 4, 6, 8, 12, 16, 24]
    assert (one.steps // 2**20).tolist() == [0, 1, 2, 3, 4, 6, 8, 12]
    powers = LogScale(bits=2, mantissa=0, unit=2**20)
    assert (powers.decays // 2**20).tolist() == [1, 2, 4, 8]
    assert (powers.steps // 2**20).tolist() == [0, 1, 2, 4]
    even = LogScale(bits=2, mantissa=2, unit=2**20)
    assert (even.steps // 2**20).tolist() == [0, 1, 2, 3]


def test_scales_stay_in_range() -> None:
    widest = LogScale(bits=8, mantissa=0, unit=2**31 - 1)
    assert widest.decays.max() == widest.steps.max() == MAX_DECAY
    assert LogScale(bits=2, mantissa=0, unit=1).decays.min() == MIN_DECAY


@pytest.mark.parametrize(
    ("bits", "mantissa", "unit"), [(1, 0, 5), (9, 0, 5), (4, 5, 5), (4, -1, 5), (4, 1, 0), (4, 1, 2**31)]
)
def test_impossible_scales_are_refused(bits: int, mantissa: int, unit: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        LogScale(bits=bits, mantissa=mantissa, unit=unit)


def _codes(rng: np.random.Generator, bits: int, M: int) -> PolarCodes:
    def scale() -> LogScale:
        return LogScale(
            bits=bits, mantissa=int(rng.integers(0, bits + 1)), unit=int(2 ** rng.uniform(0, 31)) or 1
        )

    draw = [tuple(rng.integers(0, 2**bits, M).tolist()) for _ in range(2)]
    return PolarCodes(scale(), scale(), decays=draw[0], angles=draw[1])


@pytest.mark.parametrize("seed", range(20))
def test_decoder_is_the_equation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    decays, steps = rng.integers(MIN_DECAY, MAX_DECAY, 64), rng.integers(0, TURN // 100, 64)
    re, im = decode(decays=decays, steps=steps)
    expected = (1 - decays / TURN) * np.exp(2j * np.pi * np.cumsum(steps) / TURN) * 2**15
    assert np.max(np.abs(re - expected.real)) < LSB
    assert np.max(np.abs(im - expected.imag)) < LSB


def _by_the_page(codes: PolarCodes) -> list[tuple[int, int]]:
    """SPEC 4.16 in Python's integers, one mode after the other."""

    def shift(x: int, s: int) -> int:
        return (x + (1 << (s - 1))) >> s

    def parts(scale: LogScale, c: int) -> tuple[int, int, int]:
        return c >> scale.mantissa, c % 2**scale.mantissa, 2**scale.mantissa

    phi, found = 0, []
    for d, a in zip(codes.decays, codes.angles, strict=True):
        e, f, top = parts(codes.decay_scale, d)
        v = min(max((top + f) * 2**e * codes.decay_scale.unit, 2**18), 2**32 - 1)
        e, f, top = parts(codes.angle_scale, a)
        step = f * codes.angle_scale.unit if e == 0 else (top + f) * 2 ** (e - 1) * codes.angle_scale.unit
        phi = (phi + min(step, 2**32 - 1)) % 2**32
        x, y = 2**30, 0
        for b in range(1, 25):
            if phi >> (32 - b) & 1:
                angle = 2 * math.pi * 2.0**-b
                C, S = round(math.cos(angle) * 2**30), round(math.sin(angle) * 2**30)
                x, y = shift(x * C - y * S, 30), shift(x * S + y * C, 30)
        x, y = (shift(z - shift(z * v, 32), 15) for z in (x, y))
        found.append((min(max(x, -32767), 32767), min(max(y, -32767), 32767)))
    return found


@pytest.mark.parametrize("bits", range(2, 9))
def test_decoder_is_the_specification(bits: int) -> None:
    codes = _codes(np.random.default_rng(bits), bits, 200)
    re, im = codes.operands()
    assert list(zip(re.tolist(), im.tolist(), strict=True)) == _by_the_page(codes)


def test_no_code_is_unstable() -> None:
    """The slowest decay at every angle that the upper 12 bits reach, and random codes of every width."""
    decays, steps = np.full(2**12, MIN_DECAY), np.full(2**12, TURN >> 12)
    pairs = [decode(decays=decays, steps=steps)]
    rng = np.random.default_rng(0)
    pairs += [_codes(rng, bits, 500).operands() for bits, _ in itertools.product(range(2, 9), range(10))]
    for re, im in pairs:
        assert np.max(re.astype(np.int64) ** 2 + im.astype(np.int64) ** 2) < 2**30


@pytest.mark.slow
def test_states_of_any_codes_stay_bounded() -> None:
    """100,000 steps of the integer recurrence, 24 bits wide so that nothing saturates: driven at resonance, then alone.

    With |lambda| = 1 - v the state is at most (u + 1/sqrt(2)) / v, u the input's modulus: a rounding adds at most half
    a code to each part. Without input it cannot leave max(its modulus, 1 / (sqrt(2) v)).
    """
    rng = np.random.default_rng(0)
    pairs = [_codes(rng, bits, 40).operands() for bits in (2, 3, 4, 8)]
    re, im = (np.concatenate(part).astype(np.int64) for part in zip(*pairs, strict=True))
    modulus = np.sqrt(re**2 + im**2) / 2**15
    v = 1 - modulus
    assert v.min() > 0
    driven, alone = 0.0, 0.0
    q_re = q_im = np.zeros(len(re), np.int64)
    for k in range(100_000):
        u = 100 if k < 50_000 else 0
        # The input that points along the state it meets: the worst one.
        size = np.maximum(np.hypot(q_re, q_im), 1.0)
        u_re, u_im = np.rint(u * q_re / size).astype(np.int64), np.rint(u * q_im / size).astype(np.int64)
        u_re = np.where((q_re == 0) & (q_im == 0), u, u_re)
        if k == 50_000:
            start = np.hypot(q_re, q_im)
        q_re, q_im = (
            ((re * q_re - im * q_im + 2**14) >> 15) + u_re,
            ((re * q_im + im * q_re + 2**14) >> 15) + u_im,
        )
        if k < 50_000:
            driven = max(driven, float(np.max(np.hypot(q_re, q_im) / ((u + 2) / v))))
        else:
            limit = np.maximum(start, 1 / (np.sqrt(2) * v)) + 1
            alone = max(alone, float(np.max(np.hypot(q_re, q_im) / limit)))
    assert 0.5 < driven <= 1.0
    assert 0.0 < alone <= 1.0
