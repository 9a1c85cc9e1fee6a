from pathlib import Path

import numpy as np
import pytest

from qs5 import tasks
from qs5.tasks import DataError, Encoding, Task
from qs5.tasks.custom import standardization

ATOL = 1e-5  # float32 encoding of values of the order 1
N, L, D = 40, 6, 3
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(N, L, D)) * [1.0, 10.0, 0.0] + [0.0, 100.0, 7.3]
Y = np.arange(N) % 2
THREE = np.repeat(["train", "validation", "test"], [20, 10, 10])


def load(path: Path, *, options: dict | None = None, **arrays: object) -> Task:
    np.savez(path / "mine.npz", **({"x": X, "y": Y} | arrays))  # type: ignore[arg-type]
    return tasks.load("custom", path=str(path / "mine.npz"), **(options or {}))


def test_classification(tmp_path: Path):
    task = load(tmp_path)
    assert (task.name, task.objective, task.metric) == ("custom-mine", "classification", "accuracy")
    assert (task.d_in, task.d_out, task.length) == (D, 2, L)
    assert [len(part) for part in task.splits.values()] == [28, 6, 6]
    assert [np.bincount(part.y).tolist() for part in task.splits.values()] == [[14, 14], [3, 3], [3, 3]]
    assert task.train.lengths is None


def test_sequences_keep_their_labels_and_occur_once(tmp_path: Path):
    x = np.arange(N, dtype=np.int16)[:, None] * np.ones((1, L), np.int16)
    task = load(tmp_path, x=x, y=Y)
    for part in task.splits.values():
        np.testing.assert_array_equal(part.x[:, 0, 0] % 2, part.y)
    seen = np.concatenate([part.x[:, 0, 0] for part in task.splits.values()])
    assert sorted(seen) == list(range(N))


def test_the_seed_decides_the_split(tmp_path: Path):
    assert load(tmp_path).identity == load(tmp_path, options={"seed": 0}).identity
    assert load(tmp_path).identity != load(tmp_path, options={"seed": 1}).identity


def test_regression(tmp_path: Path):
    y = RANDOM.normal(size=(N, L, 2))
    task = load(tmp_path, y=y, split=THREE, lengths=np.full(N, 4), options={"units": ["m", "s"]})
    assert (task.objective, task.metric, task.classes, task.units) == ("regression", "rmse", None, ("m", "s"))
    assert task.d_out == 2
    np.testing.assert_array_equal(task.train.y[:, :4], y[:20, :4].astype(np.float32))
    assert np.asarray(task.test.lengths).tolist() == [4] * 10


def test_lengths_are_kept_for_all_splits_when_any_sequence_is_short(tmp_path: Path):
    lengths = np.full(N, L)
    lengths[-1] = 2
    task = load(tmp_path, split=THREE, lengths=lengths)
    assert np.asarray(task.train.lengths).tolist() == [L] * 20
    assert np.asarray(task.test.lengths)[-1] == 2


def test_named_splits(tmp_path: Path):
    task = load(tmp_path, split=THREE)
    np.testing.assert_array_equal(task.validation.x, X[20:30].astype(np.float32))
    np.testing.assert_array_equal(task.test.x, X[30:].astype(np.float32))


def test_a_missing_validation_split_is_taken_from_train(tmp_path: Path):
    task = load(tmp_path, split=np.where(THREE == "test", "test", "train"))
    assert [len(part) for part in task.splits.values()] == [26, 4, 10]
    assert np.bincount(task.validation.y).tolist() == [2, 2]
    np.testing.assert_array_equal(task.test.x, X[30:].astype(np.float32))
    train = np.concatenate([task.train.x, task.validation.x])
    np.testing.assert_array_equal(np.unique(train, axis=0), np.unique(X[:30].astype(np.float32), axis=0))


# ---- labels ----


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([7, -3]), ("-3", "7")),
        (np.array([2, 10]), ("2", "10")),
        (np.array(["10", "2"]), ("2", "10")),
        (np.array(["right", "left"]), ("left", "right")),
    ],
)
def test_class_names_are_sorted_and_indexed(labels: np.ndarray, classes: tuple[str, ...], tmp_path: Path):
    task = load(tmp_path, y=labels[Y], split=THREE)
    assert task.classes == classes
    assert [classes[y] for y in task.test.y] == [str(label) for label in labels[Y][30:]]


@pytest.mark.parametrize(("part", "where"), [("validation", 25), ("test", 35)])
def test_a_label_that_train_does_not_have_is_refused(part: str, where: int, tmp_path: Path):
    y = Y.copy()
    y[where] = 9
    with pytest.raises(DataError, match=f"expected labels of {part} among those of train, got 9"):
        load(tmp_path, y=y, split=THREE)


def test_one_class_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="expected at least two classes, got 0 only"):
        load(tmp_path, y=np.zeros(N, int))


# ---- encoding ----


def test_inputs_are_standardized_by_the_training_split(tmp_path: Path):
    x = X.copy()
    x[20:] *= 1000  # neither validation nor test may have a part in it
    task = load(tmp_path, x=x, split=THREE)
    encoded = task.encoding(task.train.x)
    np.testing.assert_allclose(encoded.mean(axis=(0, 1)), 0.0, atol=ATOL)
    np.testing.assert_allclose(encoded.std(axis=(0, 1))[:2], 1.0, atol=ATOL)


def test_a_constant_channel_has_scale_1(tmp_path: Path):
    task = load(tmp_path, split=THREE)
    assert isinstance(task.encoding, Encoding) and task.encoding.scale[2] == 1.0
    assert task.encoding(task.train.x)[:, :, 2].any() == np.False_


def test_padding_has_no_part_in_the_standardization():
    x = np.array([[[1.0], [3.0], [99.0]], [[1.0], [99.0], [99.0]], [[3.0], [99.0], [99.0]]], np.float32)
    encoding = standardization(x, np.array([2, 1, 1]))
    assert encoding.scale == (1.0,)
    assert encoding.offset == (-2.0,)


def test_raw_integers_stay_integers(tmp_path: Path):
    x = RANDOM.integers(0, 256, (N, L), np.uint8)
    task = load(tmp_path, x=x)
    assert task.train.x.dtype == np.uint8
    assert abs(task.encoding(task.train.x).mean()) < ATOL


# ---- files ----

ROWS = "".join(f"{k},{t},{k + t},{'even' if k % 2 == 0 else 'odd'}\n" for k in range(20) for t in range(3))


def test_csv(tmp_path: Path):
    (tmp_path / "walks.csv").write_text("id,time,speed,label\n" + ROWS)
    task = tasks.load("custom", path="walks.csv", data_dir=str(tmp_path))
    assert (task.name, task.classes, task.channels) == ("custom-walks", ("even", "odd"), ("speed",))
    assert [len(part) for part in task.splits.values()] == [12, 4, 4]


def test_csv_columns_are_options(tmp_path: Path):
    (tmp_path / "walks.CSV").write_text("who;when;speed;gait\n" + ROWS.replace(",", ";"))
    options = {"id_column": "who", "time_column": "when", "label_column": "gait", "feature_columns": "speed"}
    task = tasks.load("custom", path=str(tmp_path / "walks.CSV"), delimiter=";", **options)
    assert task.channels == ("speed",)


def test_csv_targets_name_the_outputs(tmp_path: Path):
    (tmp_path / "walks.csv").write_text(
        "id,time,speed,gait\n" + ROWS.replace("even", "0").replace("odd", "1")
    )
    task = tasks.load(
        "custom", path=str(tmp_path / "walks.csv"), target_columns=["speed"], feature_columns=["gait"]
    )
    assert task.units == ("speed",)
    assert task.objective == "regression"


def test_split_column_of_csv(tmp_path: Path):
    rows = "".join(f"{k},{k},{k % 2},{part}\n" for k, part in enumerate(THREE))
    (tmp_path / "s.csv").write_text("id,u,label,split\n" + rows)
    task = tasks.load("custom", path=str(tmp_path / "s.csv"))
    assert task.test.x[:, 0, 0].tolist() == list(range(30, 40))


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("none.npz", None, {}, "expected a file, got nothing at this path"),
        ("mine.npz", b"", {}, "expected sequences, got an empty file"),
        ("mine.csv", b"", {}, "expected sequences, got an empty file"),
        ("mine.txt", b"a", {}, r"expected a \.npz or \.csv file, got '\.txt'"),
        ("mine", b"a", {}, r"expected a \.npz or \.csv file, got 'no ending'"),
        ("mine.npz", b"a", {"id_column": "who"}, "expected column options with a .csv file only"),
        ("mine.csv", b"a", {"delimiter": ""}, "expected a delimiter of one character, got ''"),
        ("mine.csv", b"name,u\n", {}, "expected a column id or sequence"),
    ],
)
def test_bad_files_are_refused(name: str, content: bytes | None, options: dict, message: str, tmp_path: Path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        tasks.load("custom", path=str(path), **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (np.repeat(["train", "dev"], 20), "expected splits train, validation, test, got dev"),
        (np.repeat(["train"], N), "got 40 sequences and none for test"),
        (np.repeat(["validation", "test"], 20), "none for train"),
        (np.repeat(["train", "test"], [3, 37]), "none for validation"),
    ],
)
def test_bad_splits_are_refused(split: np.ndarray, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        load(tmp_path, split=split)


def test_too_few_sequences_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="got 6 sequences and none for validation, test; give more"):
        load(tmp_path, x=X[:6], y=Y[:6])


@pytest.mark.parametrize("y", [Y, np.zeros((N, L, 2))])
def test_units_must_fit_the_outputs(y: np.ndarray, tmp_path: Path):
    with pytest.raises(DataError, match=r"expected units for [02] regression outputs, got \('m',\)"):
        load(tmp_path, y=y, options={"units": "m"})
