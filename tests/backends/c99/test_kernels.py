"""Kernels of the emitted C at their edges, against SPEC.md in Python's integers, which cannot overflow."""

import ctypes
import math
from pathlib import Path

import numpy as np
import pytest
from tests.emitted import compile_c

from qs5.backends.c99 import KERNELS

INT32 = 2**31 - 1
BEYOND = 2**28 - 2**13 - 1
"""SPEC 3: where `requantize` clips its argument, the exact result and its own are both at least this large."""

WRAPPERS = f"""#include "{KERNELS}"
void requantize(int32_t *out, const int32_t *x, uint32_t n, int32_t M, uint32_t s);
void root(uint32_t *out, const uint32_t *x, uint32_t n);
void norm(qs5_code *out, const qs5_code *x, uint32_t n, const int16_t *M, const int32_t *zero, const uint8_t *one);
void row16(qs5_code *out, uint8_t *row, const qs5_code *x, uint32_t n, int32_t high);
void row8(qs5_code *out, uint8_t *row, const qs5_code *x, uint32_t n, int32_t high);

void requantize(int32_t *out, const int32_t *x, uint32_t n, int32_t M, uint32_t s)
{{
    for (uint32_t i = 0; i < n; i++) {{
        out[i] = qs5k_requantize(x[i], M, s);
    }}
}}

void root(uint32_t *out, const uint32_t *x, uint32_t n)
{{
    for (uint32_t i = 0; i < n; i++) {{
        out[i] = qs5k_sqrt(x[i]);
    }}
}}

void norm(qs5_code *out, const qs5_code *x, uint32_t n, const int16_t *M, const int32_t *zero, const uint8_t *one)
{{
    qs5k_layer_norm(out, n, x, M, zero, one, -INT32_C(1000000), INT32_C(1000000));
}}

void row16(qs5_code *out, uint8_t *row, const qs5_code *x, uint32_t n, int32_t high)
{{
    qs5k_save16(row, n, x);
    qs5k_load16(out, n, row, high);
}}

void row8(qs5_code *out, uint8_t *row, const qs5_code *x, uint32_t n, int32_t high)
{{
    qs5k_save8(row, n, x);
    qs5k_load8(out, n, row, high);
}}
"""


class Kernels:
    """The kernels compiled for this computer; wide: codes are int32."""

    def __init__(self, folder: Path, *, wide: bool) -> None:
        source = folder / "kernels.c"
        source.write_text(("#define QS5_WIDE_CODES\n" if wide else "") + WRAPPERS)
        self._library = ctypes.CDLL(
            str(compile_c([source], folder / "kernels.so", "-O1", "-fPIC", "-shared"))
        )
        self.code = np.dtype(np.int32 if wide else np.int16)

    def __call__(self, name: str, *arguments: np.ndarray | int) -> None:
        """Arrays by their address, numbers as 32 bits."""
        given = [
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int32(a)
            for a in arguments
        ]
        getattr(self._library, name)(*given)


@pytest.fixture(scope="module", params=[False, True], ids=["int16", "int32"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """For both types of codes."""
    return Kernels(tmp_path_factory.mktemp("kernels"), wide=request.param)


def assert_requantizes(kernels: Kernels, x: np.ndarray, M: int, s: int) -> None:
    got = np.empty_like(x)
    kernels("requantize", got, x, len(x), M, s)
    limit = INT32 >> (17 - s) if s < 17 else INT32
    for value, mine in zip(x.tolist(), got.tolist(), strict=True):
        exact = (value * M + 2 ** (s - 1)) >> s
        if abs(value) <= limit or M == 0:
            assert mine == exact, (value, M, s)
        else:
            assert min(abs(mine), abs(exact)) >= BEYOND and mine * exact > 0, (value, M, s)


@pytest.mark.parametrize("s", [1, 2, 8, 15, 16, 17, 18, 31, 46])
def test_requantize_is_exact_up_to_its_clip(kernels: Kernels, s: int) -> None:
    """Shifts below 17 clip the accumulator at the last value that they can move left."""
    limit = INT32 >> max(17 - s, 0)
    edges = [limit + d for d in (-1, 0, 1) if limit + d <= INT32] + [
        INT32 - 1,
        INT32,
        limit // 2,
        2**16,
        3,
        1,
        0,
    ]
    x = np.array([sign * v for v in edges for sign in (1, -1)], np.int32)
    for M in (0, 2**14, 2**14 + 1, 2**15 - 1):
        assert_requantizes(kernels, x, M, s)


def test_square_root_on_both_sides_of_squares(kernels: Kernels) -> None:
    roots = np.concatenate([np.arange(70), 2 ** np.arange(7, 16), 2 ** np.arange(7, 17) - 1]).astype(np.int64)
    v = np.unique(np.concatenate([roots**2, np.maximum(roots**2 - 1, 0), roots**2 + 2 * roots, [2**32 - 1]]))
    got = np.empty(len(v), np.uint32)
    kernels("root", got, v.astype(np.uint32), len(v))
    assert got.tolist() == [math.isqrt(value) for value in v.tolist()]


def shifted(x: int, s: int) -> int:
    return (x + 2 ** (s - 1)) >> s if s > 0 else x * 2**-s


def spec_norm(x: list[int]) -> tuple[list[int], int, int, int]:
    """SPEC 4.5 word by word: n, and t, z, V."""
    H = len(x)
    b = max(b for b in range(17) if 2 ** math.ceil(math.log2(H)) * 2 ** (2 * b) <= 2**31)
    total = sum(x)
    d = [H * v - total for v in x]
    t = max(0, max(map(abs, d)).bit_length() - b)
    c = [shifted(v, t) for v in d]
    V = sum(v * v for v in c)
    if V == 0:
        return [0] * H, t, 0, 0
    z = (32 - V.bit_length()) // 2
    r = 2**31 // math.isqrt(V * 4**z)
    return [min(max(shifted(v * r, 16 - z), -32767), 32767) for v in c], t, z, V


def norm_of(kernels: Kernels, x: list[int]) -> list[int]:
    """n itself: an affine of M = 2 and shift 1 leaves it as it is."""
    n = len(x)
    out, codes = np.empty(n, kernels.code), np.array(x, kernels.code)
    M, zero, one = np.full(n, 2, np.int16), np.zeros(n, np.int32), np.ones(n, np.uint8)
    kernels("norm", out, codes, n, M, zero, one)
    return out.tolist()


def edge_rows(H: int) -> list[list[int]]:
    """Rows whose largest deviation has any number of bits, on both sides of a power of two."""
    high = min(2**15 - 1, 2**29 // H)
    peaks = sorted({p for k in range(16) for p in (2**k - 1, 2**k, 2**k + 1) if 0 < p <= high} | {high})
    rows = [[sign * p, *[0] * (H - 1)] for p in peaks for sign in (1, -1)]
    return [*rows, *([p if i % 2 else -p for i in range(H)] for p in peaks), [high] * H, [0] * H]


@pytest.mark.parametrize("H", [1, 2, 3, 4, 5, 33, 2**14])
def test_layer_norm_at_the_limits_of_its_shifts(kernels: Kernels, H: int) -> None:
    rows = edge_rows(H) if H < 2**14 else edge_rows(H)[:6]
    expected = [spec_norm(row) for row in rows]
    for row, (n, *_) in zip(rows, expected, strict=True):
        assert norm_of(kernels, row) == n, row[:5]
    if H == 2:
        assert {t for _, t, _, _ in expected} == {0, 1}
        assert {z for _, _, z, _ in expected} == set(range(16))


def test_layer_norm_where_its_sum_of_squares_is_largest(tmp_path: Path) -> None:
    """Unsigned codes of 16 bits: the deviations have 16 bits and round up to 2^15."""
    row = [2**16 - 1, 0]
    n, t, z, V = spec_norm(row)
    assert (t, z, V) == (1, 0, 2**30 + (2**15 - 1) ** 2)
    assert norm_of(Kernels(tmp_path, wide=True), row) == n


def test_layer_norm_clips_a_norm_that_is_one_too_large(kernels: Kernels) -> None:
    row = [2**15 - 1, *[0] * (2**14 - 1)]
    assert spec_norm(row)[0][0] == 32767 == norm_of(kernels, row)[0]


@pytest.mark.parametrize(("bits", "signed"), [(16, True), (16, False), (15, False), (9, True), (9, False)])
def test_rows_of_16_bits_hold_every_code(kernels: Kernels, bits: int, signed: bool) -> None:
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    if high > np.iinfo(kernels.code).max:
        pytest.skip("needs codes of 32 bits")
    x = np.arange(-high if signed else 0, high + 1).astype(kernels.code)
    out, row = np.zeros_like(x), np.zeros(2 * len(x), np.uint8)
    kernels("row16", out, row, x, len(x), high)
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(row.view("<u2"), x.astype(np.int64) % 2**16)


@pytest.mark.parametrize("signed", [True, False])
def test_rows_of_8_bits_hold_every_code(kernels: Kernels, signed: bool) -> None:
    high = 127 if signed else 255
    x = np.arange(-high if signed else 0, high + 1).astype(kernels.code)
    out, row = np.zeros_like(x), np.zeros(len(x), np.uint8)
    kernels("row8", out, row, x, len(x), high)
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(row, x.astype(np.int64) % 2**8)
