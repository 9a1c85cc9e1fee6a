import dataclasses
from typing import Any

import numpy as np
import pytest

from qs5.tasks import DataError, Encoding, Split, Task

N, L, D = 4, 5, 2


def split(*, n: int = N, length: int = L, d: int = D, **changes: Any) -> Split:
    values = np.arange(n * length * d, dtype=np.int16).reshape(n, length, d)
    fields: dict = {"x": values, "y": np.arange(n, dtype=np.int32) % 2, "lengths": None}
    return Split(**(fields | changes))


def task(**changes: Any) -> Task:
    fields: dict = {
        "name": "toy",
        "train": split(),
        "validation": split(n=2),
        "test": split(n=3),
        "encoding": Encoding(scale=(0.5, 2.0), offset=(1.0, -1.0)),
        "classes": ("no", "yes"),
        "units": None,
        "objective": "classification",
        "metric": "accuracy",
    }
    return Task(**(fields | changes))


def test_derived_properties():
    toy = task()
    assert (toy.d_in, toy.d_out, toy.length, toy.higher_is_better) == (2, 2, 5, True)
    assert [len(part) for part in toy.splits.values()] == [4, 2, 3]
    assert toy.selection == "best validation metric"


def test_outputs_of_a_regression_are_those_of_the_targets():
    parts = {name: split(y=np.zeros((N, L, 3), np.float32)) for name in ("train", "validation", "test")}
    toy = task(**parts, classes=None, objective="regression", metric="rmse")
    assert toy.d_out == 3
    assert not toy.higher_is_better


def test_encoding_is_scale_times_raw_plus_offset_in_float32():
    encoded = Encoding(scale=(0.5, 2.0), offset=(1.0, -1.0))(np.array([[4, 10], [-2, 0]], np.int16))
    np.testing.assert_array_equal(encoded, [[3.0, 19.0], [0.0, -1.0]])
    assert encoded.dtype == np.float32


def test_take_keeps_order_and_all_fields():
    part = split(lengths=np.array([1, 2, 3, 4], np.int32)).take(np.array([2, 0]))
    np.testing.assert_array_equal(part.x[:, 0, 0], [20, 0])
    np.testing.assert_array_equal(part.y, [0, 0])
    np.testing.assert_array_equal(np.asarray(part.lengths), [3, 1])
    assert split().take(np.array([1])).lengths is None


def test_values_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        task().name = "other"  # type: ignore[misc]


def changed(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flat[-1] += 1
    return copy


def test_identity_is_that_of_the_content():
    assert task().identity == task().identity
    big_endian = split(x=split().x.astype(">i2"))
    assert task(train=big_endian).identity == task().identity


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"train": split(x=changed(split().x))},
        {"validation": split(n=2, y=changed(split(n=2).y))},
        {"test": split(n=3, lengths=np.full(3, L, np.int32))},
        {"train": split(x=split().x.astype(np.float32))},
        {"train": split(n=2), "validation": split()},
        {"encoding": Encoding(scale=(0.5, 2.0), offset=(1.0, -1.5))},
        {"classes": ("yes", "no")},
        {"units": ("m",)},
        {"channels": ("a", "b")},
    ],
)
def test_identity_depends_on_everything(change: dict):
    assert task(**change).identity != task().identity


def test_identity_of_a_split_tells_shape_from_bytes():
    assert split(n=2, length=2, d=1).identity != split(n=2, length=1, d=2).identity
    assert split().identity == split().identity
    assert len(split().identity) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((N, L), np.uint8)}, r"expected x of shape \(N, L, d\).*got \(4, 5\) uint8"),
        ({"x": np.zeros((N, L, D))}, "got .* float64"),
        ({"y": np.zeros(N, np.int64)}, r"expected y of shape \(4,\) int32 or .*got \(4,\) int64"),
        ({"y": np.zeros(N - 1, np.int32)}, r"got \(3,\) int32"),
        ({"y": np.zeros((N, L + 1, 1), np.float32)}, r"got \(4, 6, 1\) float32"),
        ({"lengths": np.ones(N)}, r"expected lengths of shape \(4,\) and type int32, got \(4,\) float64"),
        ({"lengths": np.ones(N + 1, np.int32)}, r"expected lengths of shape \(4,\)"),
        ({"lengths": np.array([1, 2, 0, 5], np.int32)}, "expected lengths between 1 and 5, got 0 to 5"),
        ({"lengths": np.array([1, 2, 6, 5], np.int32)}, "expected lengths between 1 and 5, got 1 to 6"),
    ],
)
def test_a_malformed_split_is_refused(change: dict, message: str):
    with pytest.raises(DataError, match=message):
        split(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": split(length=L + 1)}, r"expected sequences of shape \(5, 2\) .*got \(6, 2\) in test"),
        ({"encoding": Encoding(scale=(1.0,), offset=(0.0,))}, "expected an encoding of 2 channels, got 1"),
        ({"classes": None}, "expected class names exactly for classification, got None"),
        ({"objective": "regression"}, "set classes and objective together"),
    ],
)
def test_a_malformed_task_is_refused(change: dict, message: str):
    with pytest.raises(DataError, match=message):
        task(**change)


def test_an_encoding_needs_as_many_scales_as_offsets():
    with pytest.raises(DataError, match="expected as many scales as offsets, got 2 and 1"):
        Encoding(scale=(1.0, 1.0), offset=(0.0,))
