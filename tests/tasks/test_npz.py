import zipfile
from pathlib import Path

import numpy as np
import pytest

from qs5.tasks import DataError
from qs5.tasks.npz import read_npz
from qs5.tasks.sequences import Sequences

N, L, D = 4, 3, 2
X = np.arange(N * L * D, dtype=np.float32).reshape(N, L, D)
Y = np.array([0, 1, 0, 1])


def read(path: Path, **arrays: object) -> Sequences:
    np.savez(path / "data.npz", **arrays)  # type: ignore[arg-type]
    return read_npz(path / "data.npz")


def test_padded_sequences(tmp_path: Path):
    data = read(tmp_path, x=X, y=Y)
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(np.asarray(data.labels), Y)
    assert data.lengths.tolist() == [L] * N
    assert data.targets is None
    assert data.split is None


def test_one_channel_may_be_left_out(tmp_path: Path):
    assert read(tmp_path, x=X[:, :, 0], y=Y).x.shape == (N, L, 1)


def test_lengths_blank_the_padding(tmp_path: Path):
    x = X.copy()
    x[1, 2:] = np.nan
    data = read(tmp_path, x=x, y=Y, lengths=np.array([3, 2, 3, 3]))
    assert data.lengths.tolist() == [3, 2, 3, 3]
    assert data.lengths.dtype == np.int32
    np.testing.assert_array_equal(data.x[1], [[6, 7], [8, 9], [0, 0]])


def test_joined_sequences(tmp_path: Path):
    joined = np.arange(12, dtype=np.int16).reshape(6, 2)
    data = read(tmp_path, x=joined, y=np.array(["a", "b", "a"]), offsets=np.array([0, 1, 4, 6]))
    assert data.x.shape == (3, 3, 2)
    assert data.x.dtype == np.int16
    assert data.lengths.tolist() == [1, 3, 2]
    assert np.asarray(data.labels).tolist() == ["a", "b", "a"]


@pytest.mark.parametrize("d_out", [None, 2])
def test_joined_targets(d_out: int | None, tmp_path: Path):
    y = np.arange(6.0) if d_out is None else np.arange(12.0).reshape(6, 2)
    data = read(tmp_path, x=np.zeros(6), y=y, offsets=np.array([0, 2, 6]))
    targets = np.asarray(data.targets)
    assert data.labels is None
    assert targets.shape == (2, 4, d_out or 1)
    assert targets[0, :, 0].tolist() == [0.0, 1.0 * (d_out or 1), 0.0, 0.0]
    assert targets.dtype == np.float32


def test_one_value_for_a_sequence_of_one_step_is_a_label(tmp_path: Path):
    data = read(tmp_path, x=np.zeros((3, 2)), y=np.array([0, 1, 1]), offsets=np.arange(4))
    assert np.asarray(data.labels).tolist() == [0, 1, 1]


@pytest.mark.parametrize("shape", [(N, L), (N, L, 3)])
def test_targets_of_every_step(shape: tuple[int, ...], tmp_path: Path):
    y = np.arange(np.prod(shape)).reshape(shape)
    data = read(tmp_path, x=X, y=y, lengths=np.array([3, 3, 3, 1]))
    targets = np.asarray(data.targets)
    assert targets.shape == (N, L, shape[2] if len(shape) == 3 else 1)
    np.testing.assert_array_equal(targets[:3].ravel(), y[:3].ravel())
    assert not targets[3, 1:].any()


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (np.array([b"a", b"b", b"a", b"b"]), ["a", "b", "a", "b"]),
        (np.array([True, False, True, True]), [1, 0, 1, 1]),
        (np.array([3, 4, 3, 200], np.uint8), [3, 4, 3, 200]),
    ],
)
def test_kinds_of_labels(y: np.ndarray, labels: list, tmp_path: Path):
    assert np.asarray(read(tmp_path, x=X, y=y).labels).tolist() == labels


@pytest.mark.parametrize("kind", ["U", "S"])
def test_split_array(kind: str, tmp_path: Path):
    split = np.array(["train", "train", "test", "validation"], kind)
    assert np.asarray(read(tmp_path, x=X, y=Y, split=split).split).tolist() == [
        "train",
        "train",
        "test",
        "validation",
    ]


def test_arrays_of_every_split_are_padded_to_the_longest(tmp_path: Path):
    data = read(
        tmp_path, x_train=X, y_train=Y, x_test=X[:2, :2], y_test=Y[:2], lengths_train=np.array([3, 2, 3, 3])
    )
    assert data.x.shape == (6, 3, 2)
    assert data.lengths.tolist() == [3, 2, 3, 3, 2, 2]
    assert np.asarray(data.split).tolist() == ["train"] * 4 + ["test"] * 2
    np.testing.assert_array_equal(data.x[4], [[0, 1], [2, 3], [0, 0]])
    assert np.asarray(data.labels).tolist() == [0, 1, 0, 1, 0, 1]


def test_targets_of_every_split(tmp_path: Path):
    y = np.ones((N, L))
    data = read(tmp_path, x_train=X, y_train=y, x_test=X[:2, :2], y_test=y[:2, :2])
    assert np.asarray(data.targets)[:, :, 0].sum(axis=1).tolist() == [3, 3, 3, 3, 2, 2]


def ragged() -> np.ndarray:
    array = np.empty(2, object)
    array[:] = [np.zeros(2), np.zeros(3)]
    return array


BAD = {
    "no x": ({"y": Y}, "expected an array x, or x_train and x_test, got y"),
    "no y": ({"x": X}, "expected an array y .*got x; add it"),
    "no y of a split": ({"x_train": X, "y_train": Y, "x_test": X}, "expected an array y"),
    "no arrays": ({}, "expected an array x, .*got an empty file"),
    "no sequences": ({"x": X[:0], "y": Y[:0]}, r"got x of shape \(0, 3, 2\); the data is empty"),
    "misspelt": ({"x": X, "y": Y, "length": Y}, "expected arrays x, y, lengths, .*got also length"),
    "objects": (
        {"x": ragged(), "y": Y[:2]},
        "expected a plain array x, got an object array; .*lengths.*offsets",
    ),
    "axes of x": ({"x": X[None], "y": Y}, r"expected x of shape \(N, L\) or \(N, L, d\), got \(1, 4, 3, 2\)"),
    "no channels": ({"x": np.arange(3), "y": Y}, r"got \(3,\)"),
    "type of x": ({"x": X.astype(str), "y": Y}, "expected real numbers in x, got type <U"),
    "nan": ({"x": np.where(X == 13, np.nan, X), "y": Y}, "got nan at sequence 2, step 0, channel 1"),
    "inf": ({"x": np.where(X == 13, np.inf, X), "y": Y}, "got inf at sequence 2"),
    "too large": ({"x": X.astype(float) * 1e300, "y": Y}, "expected finite float32 numbers in x, got inf"),
    "nan target": ({"x": X, "y": np.full((N, L), np.nan)}, "expected finite .* in y, got nan at sequence 0"),
    "number of labels": ({"x": X, "y": Y[:3]}, r"expected y of shape \(4,\) \(labels\) .*got \(3,\)"),
    "steps of targets": ({"x": X, "y": np.zeros((N, L + 1))}, r"got \(4, 4\)"),
    "axes of targets": ({"x": X, "y": np.zeros((N, L, 1, 1))}, r"got \(4, 3, 1, 1\)"),
    "scalar y": ({"x": X, "y": 3}, r"got \(\)"),
    "type of targets": ({"x": X, "y": np.full((N, L), "a")}, "expected real numbers in y"),
    "real labels": ({"x": X, "y": Y * 0.5}, "expected integer or string labels in y, got type float64"),
    "number of lengths": (
        {"x": X, "y": Y, "lengths": Y[:3]},
        r"expected lengths of shape \(4,\) .*got \(3,\)",
    ),
    "type of lengths": ({"x": X, "y": Y, "lengths": Y + 1.0}, "an integer type, got .* float64"),
    "zero length": ({"x": X, "y": Y, "lengths": Y}, "expected lengths between 1 and 3 .*got 0 to 1"),
    "long length": ({"x": X, "y": Y, "lengths": Y + 3}, "got 3 to 4"),
    "both": ({"x": X, "y": Y, "lengths": Y, "offsets": Y}, "expected lengths .* or offsets .*got both"),
    "offsets of padded": ({"x": X, "y": Y, "offsets": Y}, r"expected joined x of shape .*got \(4, 3, 2\)"),
    "type of offsets": (
        {"x": X[0], "y": Y[:1], "offsets": np.array([0.0, 3.0])},
        "an integer type, got .* float64",
    ),
    "one offset": (
        {"x": X[0], "y": Y[:1], "offsets": np.array([0])},
        r"expected offsets of shape \(N \+ 1,\)",
    ),
    "start": ({"x": X[0], "y": Y[:1], "offsets": np.array([1, 3])}, "rise from 0 to 3 .*got 1 to 3"),
    "end": ({"x": X[0], "y": Y[:1], "offsets": np.array([0, 2])}, "got 0 to 2"),
    "empty sequence": ({"x": X[0], "y": Y[:3], "offsets": np.array([0, 2, 2, 3])}, "without repeats"),
    "joined targets": (
        {"x": X[0], "y": np.zeros((3, 1, 1)), "offsets": np.array([0, 1, 3])},
        r"expected joined steps .*got \(3, 1, 1\)",
    ),
    "length of split": ({"x": X, "y": Y, "split": np.array(["train"])}, r"expected split of shape \(4,\)"),
    "type of split": ({"x": X, "y": Y, "split": Y}, "with strings, got .* int64"),
    "latin-1 labels": ({"x": X[:1], "y": np.array([b"\xe9"])}, "expected text in UTF-8 in y"),
    "channels of splits": (
        {"x_train": X, "y_train": Y, "x_test": X[:, :, :1], "y_test": Y},
        "expected test to be like train .2 channels, integer labels., got 1 channels",
    ),
    "labels of splits": (
        {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)},
        "got 2 channels, string labels",
    ),
    "targets of splits": (
        {"x_train": X, "y_train": Y, "x_test": X, "y_test": np.zeros((N, L))},
        "got 2 channels, 1 targets a step",
    ),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD)
def test_bad_arrays_are_refused(arrays: dict, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        read(tmp_path, **arrays)


def test_a_truncated_file_is_refused(tmp_path: Path):
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"expected a complete \.npz file, got a damaged one"):
        read_npz(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_corrupt_array_is_refused(save, tmp_path: Path):
    path = tmp_path / "data.npz"
    save(path, x=np.zeros((1000, 100)), y=np.zeros(1000, int))
    content = bytearray(path.read_bytes())
    content[300:320] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected a readable array x, got damaged data"):
        read_npz(path)


def test_other_files_are_refused(tmp_path: Path):
    path = tmp_path / "data.npz"
    path.write_bytes(b"not an archive")
    with pytest.raises(DataError, match=r"expected a complete \.npz file"):
        read_npz(path)
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"expected a \.npz archive, got one array"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"expected arrays only, got another kind of file readme\.txt"):
        read_npz(path)
