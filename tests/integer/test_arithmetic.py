"""The integer functions against Python's own integers and fractions, and the worked tables of SPEC.md."""

from fractions import Fraction
from math import ceil, floor, isqrt, log2, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

import qs5.integer
from qs5.integer import arithmetic as a

INT32 = 2**31 - 1
HALF = Fraction(1, 2)
SPEC = (Path(qs5.integer.__file__).parent / "SPEC.md").read_text()

int32 = st.integers(-INT32, INT32) | st.integers(-40, 40) | st.sampled_from([INT32, -INT32, 2**30, -(2**30)])
multiplier = st.integers(2**14, 2**15 - 1) | st.just(0)


def nearest(x: Fraction) -> int:
    """SPEC 2: to nearest, halves towards plus infinity."""
    return floor(x + HALF)


# -- the worked tables of SPEC.md ------------------------------------------------------------------------------


def rows_of(label: str) -> list[list[str]]:
    """Cells of the Markdown table that has a row of that label, without the first column and the ruler."""
    lines = [line.strip() for line in SPEC.splitlines()]
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {label} |"))
    first, last = at, at
    while lines[first - 1].startswith("|"):
        first -= 1
    while lines[last + 1].startswith("|"):
        last += 1
    rows = [
        [c.strip() for c in line.strip("|").split("|")][1:]
        for line in lines[first : last + 1]
        if "---" not in line
    ]
    assert len({len(row) for row in rows}) == 1
    return rows


def number(cell: str) -> int:
    base, _, power = cell.partition("^")
    return int(base) ** int(power or 1)


def test_table_of_roundings() -> None:
    xs, rounded = rows_of("rounded")
    assert len(xs) == 9
    for x, expected in zip(xs, rounded, strict=True):
        quarters = int(float(x) * 4)
        assert nearest(Fraction(x)) == int(expected)
        assert int(a.shift(np.array(quarters), 2)) == int(expected)


def test_table_of_shifts() -> None:
    rows = rows_of("shift(x, s)")
    assert len(rows[0]) == 7
    for x, s, expected in zip(*rows, strict=True):
        assert int(a.shift(np.array(number(x)), number(s))) == number(expected)


def test_table_of_requantize() -> None:
    rows = rows_of("M, s")
    assert len(rows[0]) == 5
    for x, pair, expected in zip(*rows, strict=True):
        M, s = (number(part) for part in pair.split(","))
        assert int(a.requantize(np.array(number(x)), M, s)) == number(expected)


# -- the functions ---------------------------------------------------------------------------------------------


@given(int32, st.integers(-15, 30))
@example(-1, 1)
@example(1, 1)
@example(-INT32, 30)
@example(INT32, -15)
def test_shift_is_rounding_of_the_quotient(x: int, s: int) -> None:
    expected = nearest(Fraction(x, 2**s)) if s > 0 else x * 2**-s
    assert int(a.shift(np.array(x), s)) == expected


def test_shift_takes_one_amount_a_channel() -> None:
    got = a.shift(np.array([[5, 5, 5], [-6, -6, -6]]), np.array([2, 0, -2], np.int8))
    assert got.tolist() == [[1, 5, 20], [-1, -6, -24]]


@given(int32, multiplier, st.integers(1, 46))
@example(INT32, 2**15 - 1, 1)
@example(-INT32, 2**15 - 1, 46)
@example(3, 2**14, 15)
@example(-3, 2**14, 15)
def test_requantize_is_rounding_of_the_product(x: int, M: int, s: int) -> None:
    assert int(a.requantize(np.array(x), M, s)) == nearest(Fraction(x * M, 2**s))


@given(st.integers(-65535, 65535), st.integers(-32767, 32767), int32, st.integers(1, 30))
@example(-1, 1, 0, 1)
def test_affine_is_rounding_of_the_quotient(x: int, M: int, offset: int, s: int) -> None:
    got = a.affine(
        np.array([x]), np.array([M], np.int16), np.array([offset], np.int32), np.array([s], np.uint8)
    )
    assert got.tolist() == [nearest(Fraction(x * M + offset, 2**s))]


@given(st.integers(-(2**15), 2**15), st.integers(-INT32, INT32), st.integers(-(2**61) + 1, 2**61 - 1))
@example(2**15, INT32, 2**61 - 1)
@example(-(2**15), INT32, -(2**61) + 1)
def test_affine_has_room_for_every_input_quantizer(raw: int, M: int, offset: int) -> None:
    for s in (1, 30, 62):
        got = a.affine(np.array([raw]), np.array([M]), np.array([offset]), s)
        assert got.tolist() == [nearest(Fraction(raw * M + offset, 2**s))]


@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 2**16 - 1).map(lambda n: n * n), min_size=1))
@example([0, 1, 2, 3, 4, 2**32 - 1, 65535**2, 65535**2 - 1, 65536**2 - 1])
def test_integer_sqrt_is_that_of_python(v: list[int]) -> None:
    assert a.integer_sqrt(np.array(v)).tolist() == [isqrt(n) for n in v]


@given(st.lists(st.integers(0, 2**62), min_size=1))
@example([0, 1, 2, 3, 4, 2**31, 2**32 - 1])
def test_bit_length_is_that_of_python(v: list[int]) -> None:
    assert a.bit_length(np.array(v)).tolist() == [n.bit_length() for n in v]


@given(st.integers(-(2**46), 2**46), st.integers(1, INT32))
@example(-1, 2)
@example(1, 2)
@example(-3, 2)
def test_rounded_mean_is_nearest_with_halves_up(total: int, n: int) -> None:
    got = int(a.rounded_mean(np.array(total), n))
    assert got == floor(Fraction(total + n // 2, n))
    assert abs(got - Fraction(total, n)) <= HALF
    if n % 2 == 0:
        assert got == nearest(Fraction(total, n))


# -- requantize on 32 bits (SPEC 3) ----------------------------------------------------------------------------


def fits(x: int) -> int:
    """x, or an error where a signed 32-bit register would wrap."""
    assert -(2**31) <= x <= INT32
    return x


def requantize_on_32_bits(x: int, M: int, s: int) -> int:
    """SPEC 3, to the letter; the result is saturated by the caller."""
    if s < 17:
        most = fits(INT32 // 2 ** (17 - s))
        x = fits(min(max(x, -most), most) * 2 ** (17 - s))
        s = 17
    h, low = x >> 16, x & 0xFFFF
    assert x == 2**16 * h + low
    terms = fits(fits(h * M) + (fits(low * M) >> 16))
    return fits(terms + fits(2 ** (s - 17))) >> (s - 16)


@given(int32, multiplier, st.integers(1, 46))
@example(INT32, 2**15 - 1, 1)
@example(-INT32, 2**15 - 1, 46)
@example(-INT32, 2**14, 17)
@example(2**15, 2**14, 1)
@example(-(2**15), 2**14, 1)
def test_requantize_on_32_bits_equals_the_definition(x: int, M: int, s: int) -> None:
    exact, mine = nearest(Fraction(x * M, 2**s)), requantize_on_32_bits(x, M, s)
    if s >= 17:
        assert mine == exact
    # Saturation to 16 bits, to the 25 bits of the direct path (4.8), or only after x_k was added (4.6): all far below
    # the 2^28 - 2^13 at least that a clipped x gives.
    for room in (2**15, 2**17, 2**24, 2**28 - 2**13):
        assert min(max(mine, -room), room) == min(max(exact, -room), room)


# -- layer norm (SPEC 4.5) -------------------------------------------------------------------------------------


def normalized(x: list[int]) -> list[int]:
    """n of SPEC 4.5 in Python integers; every intermediate is held to 32 bits, as section 2 demands."""
    H = len(x)
    b = max(b for b in range(16) if 2 ** ceil(log2(H)) * 2 ** (2 * b) <= 2**31)
    d = [fits(fits(H * x_h) - fits(sum(x))) for x_h in x]
    t = max(0, max(abs(d_h) for d_h in d).bit_length() - b)
    c = [fits(d_h + (2 ** (t - 1) if t else 0)) >> t for d_h in d]
    V = sum(c_h * c_h for c_h in c)
    assert V < 2**32
    if V == 0:
        return [0] * H
    z = (32 - V.bit_length()) // 2
    assert 2**30 <= V * 4**z < 2**32
    r = fits(2**31 // isqrt(V * 4**z))
    n = [fits(fits(c_h * r) + 2 ** (15 - z)) >> (16 - z) for c_h in c]
    return [min(max(v, -32767), 32767) for v in n]


@st.composite
def steps(draw: st.DrawFn) -> list[int]:
    """Channels of one step: any number of them, any width, some nearly constant."""
    high = 2 ** draw(st.integers(1, 16)) - 1
    H = draw(st.sampled_from([1, 2, 3, 4, 5, 31, 32, 33, 96, 128, 129, 1000]))
    high = min(high, 2**29 // H)
    seed, kind = draw(st.integers(0, 2**32)), draw(st.sampled_from(["any", "extreme", "near", "one"]))
    rng = np.random.default_rng(seed)
    if kind == "any":
        return rng.integers(-high, high + 1, H).tolist()
    if kind == "extreme":
        return rng.choice([-high, high], H).tolist()
    if kind == "near":
        return (high - rng.integers(0, 2, H)).tolist()
    return [high] + [-high] * (H - 1)


@given(steps())
@example([0])
@example([5, 5, 5])
@example([2**15 - 1, -(2**15) + 1])
@example([1, 0])
@example([2**29])
@example([2**28, -(2**28)])
@example([2**15] + [-(2**15)] * (2**14 - 1))
@example([2**15] * 2**13 + [-(2**15)] * 2**13)
def test_normalize_is_section_4_5(x: list[int]) -> None:
    assert a.normalize(np.array([x])).tolist() == [normalized(x)]


@given(steps())
@example([2**15 - 1] + [0] * 999)
def test_normalize_is_close_to_the_real_vector(x: list[int]) -> None:
    """|n_h - 2^15 c_h / |c|| <= 2, and 2^15 c / |c| is within 2^15 sqrt(H) / |c| of 2^15 d / |d|, in norm.

    The first: V 4^z >= 2^30, so isqrt is exact to 2^-15 and the floor of r >= 2^15 to 2^-15 once more. An error of
    2^-14 of a number of at most 2^15 is at most 2; with the one rounding, and the saturation at 2^15 - 1, below 3.
    The second: c is d 2^-t but for half a unit a channel, so |c - d 2^-t| <= sqrt(H) / 2, and making two vectors
    unit ones at most doubles their distance over the norm of either. Without a shift (t = 0) there is no such error.
    """
    n = np.array(normalized(x), np.float64)
    H = len(x)
    d = H * np.array(x, np.float64) - sum(x)
    if not np.any(d):
        assert not np.any(n)
        return
    t = max(0, int(np.max(np.abs(d))).bit_length() - a.square_bits(H))
    c = np.floor(d / 2.0**t + 0.5)
    assert np.max(np.abs(n - 2**15 * c / np.linalg.norm(c))) < 3
    real = 2**15 * d / np.linalg.norm(d)
    rounding_of_c = 2**15 * sqrt(H) / float(np.linalg.norm(c)) if t else 0.0
    assert np.linalg.norm(n - real) <= 3 * sqrt(H) + rounding_of_c


def test_normalize_works_step_by_step() -> None:
    x = np.random.default_rng(0).integers(-127, 128, (3, 5, 7))
    whole = a.normalize(x)
    for i in np.ndindex(3, 5):
        assert whole[i].tolist() == normalized(x[i].tolist())


@pytest.mark.parametrize(
    ("channels", "bits"), [(1, 15), (2, 15), (3, 14), (4, 14), (5, 14), (128, 12), (2**14, 8)]
)
def test_square_bits_is_the_widest_that_fits(channels: int, bits: int) -> None:
    assert a.square_bits(channels) == bits
    assert 2 ** ceil(log2(channels)) * 4**bits <= 2**31 < 2 ** ceil(log2(channels)) * 4 ** (bits + 1)
