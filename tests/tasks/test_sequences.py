import numpy as np
import pytest

from qs5.tasks import DataError
from qs5.tasks.sequences import blank_padding, check_finite, pad, storable


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("uint8", "uint8"),
        ("int16", "int16"),
        (">i2", "int16"),
        ("float32", "float32"),
        (">f4", "float32"),
        ("float64", "float32"),
        ("float16", "float32"),
        ("bool", "uint8"),
        ("int8", "int16"),
        ("int64", "int16"),
        ("uint16", "int16"),
    ],
)
def test_storable_keeps_values(given: str, stored: str):
    array = np.array([0, 1, 1], given)
    got = storable(array, what="x")
    assert got.dtype == np.dtype(stored)
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("value", [2**15, -(2**15) - 1])
def test_wide_integers_become_float32(value: int):
    got = storable(np.array([value, 0]), what="x")
    assert got.dtype == np.float32
    assert got[0] == value
    assert storable(np.array([2**15 - 1, -(2**15)]), what="x").dtype == np.int16


@pytest.mark.parametrize("values", [["a"], [1j]])
def test_what_is_not_a_real_number_is_refused(values: list):
    with pytest.raises(DataError, match="expected real numbers in x, got type"):
        storable(np.array(values), what="x")


def test_padding_is_blanked_without_touching_the_original():
    array = np.full((2, 3, 1), np.nan, np.float32)
    got = blank_padding(array, np.array([1, 3]))
    np.testing.assert_array_equal(got[0, :, 0], [np.nan, 0.0, 0.0])
    assert np.isnan(array).all()
    assert got.dtype == np.float32
    whole = np.ones((2, 3, 1), np.int16)
    assert blank_padding(whole, np.array([3, 3])) is whole
    assert blank_padding(whole, np.array([3, 2])).dtype == np.int16


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_place_of_a_bad_number_is_told(value: float):
    array = np.zeros((3, 4, 2), np.float32)
    check_finite(array, what="x")
    array[2, 1, 1] = value
    with pytest.raises(DataError, match=f"got {value} at sequence 2, step 1, channel 1"):
        check_finite(array, what="x")


def test_pad_puts_every_step_in_its_place():
    flat = np.arange(12, dtype=np.int16).reshape(6, 2)
    got = pad(flat, np.array([0, 1, 4, 6]))
    assert got[:, :, 0].tolist() == [[0, 0, 0], [2, 4, 6], [8, 10, 0]]
    assert got.dtype == np.int16
