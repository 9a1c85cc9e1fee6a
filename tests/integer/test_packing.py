"""Packed weight codes: the layout of section 5.2 by hand, and every size and width there and back."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from qs5.integer import packing
from qs5.integer.packing import pack, packed_size, unpack


def highest(bits: int) -> int:
    return max(2 ** (bits - 1) - 1, 1)


def codes_of(bits: int, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if bits == 1:
        return rng.choice([-1, 1], count).astype(np.int8)
    return rng.integers(-highest(bits), highest(bits) + 1, count).astype(np.int8)


@pytest.mark.parametrize(
    ("bits", "codes", "stored"),
    [
        (1, [1, -1, -1, 1, 1, -1, -1, -1, 1], [0b00011001, 0b1]),  # 0 for -1, 1 for 1
        (2, [-1, 0, 1, -1, 1], [0b01_11_10_01, 0b11]),  # code + 2, the first one lowest
        (3, [-3, 3, 0], [0b00_111_001, 0b1]),  # 1, 7, 4: the third one lies across two bytes
        (4, [-7, 7, 1], [0xF1, 0x09]),
        (5, [-15, 15], [0b111_00001, 0b11]),
        (8, [-127, 0, 127], [1, 128, 255]),
    ],
)
def test_layout_by_hand(bits: int, codes: list[int], stored: list[int]) -> None:
    assert list(pack(np.array(codes, np.int8), bits)) == stored
    assert unpack(bytes(stored), count=len(codes), bits=bits).tolist() == codes


def by_python(codes: list[int], bits: int) -> bytes:
    """One large integer, written little-endian."""
    number = 0
    for i, code in enumerate(codes):
        unsigned = (code + 1) // 2 if bits == 1 else code + 2 ** (bits - 1)
        number |= unsigned << (bits * i)
    return number.to_bytes((bits * len(codes) + 7) // 8, "little")


@given(st.integers(1, 8), st.integers(0, 67), st.integers(0, 2**32))
def test_every_size_and_width(bits: int, count: int, seed: int) -> None:
    codes = codes_of(bits, count, seed)
    data = pack(codes, bits)
    assert data == by_python(codes.tolist(), bits)
    assert len(data) == packed_size(count, bits)
    again = unpack(data, count=count, bits=bits)
    assert again.dtype == np.int8
    np.testing.assert_array_equal(again, codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_more_codes_than_a_block(bits: int) -> None:
    count = 2 * packing._BLOCK + 13
    codes = codes_of(bits, count, 0)
    np.testing.assert_array_equal(unpack(pack(codes, bits), count=count, bits=bits), codes)


def test_matrices_are_packed_row_by_row() -> None:
    codes = codes_of(3, 15, 0)
    assert pack(codes.reshape(3, 5), 3) == pack(codes, 3)
    assert pack(np.asfortranarray(codes.reshape(3, 5)), 3) == pack(codes, 3)


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_code_of_a_width(bits: int) -> None:
    high = highest(bits)
    codes = np.array([-1, 1] if bits == 1 else range(-high, high + 1), np.int8)
    np.testing.assert_array_equal(unpack(pack(codes, bits), count=len(codes), bits=bits), codes)
