import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qs5 import tasks
from qs5.tasks import DataError, checks, fsdd
from qs5.tasks.batches import permutation
from qs5.tasks.task import PAPER, Task

REAL_DATA = os.environ.get("QS5_DATA")
SPEAKERS, TAKES = 2, 12


def arrays() -> dict[str, np.ndarray]:
    """A file of the published form: every digit by two speakers in twelve takes, 5 to 64 samples each.

    Sample i of a recording is 1000 digit + 100 speaker + take, but for the first one, which is 20,000 + i.
    """
    rows = [
        (digit, speaker, take) for digit in range(10) for speaker in range(SPEAKERS) for take in range(TAKES)
    ]
    sizes = [5 + (7 * n) % 60 for n in range(len(rows))]
    audio = [
        np.full(size, 1000 * d + 100 * s + t, np.int16) for size, (d, s, t) in zip(sizes, rows, strict=True)
    ]
    audio[0] = 20_000 + np.arange(sizes[0], dtype=np.int16)
    label, speaker, take = (np.array(column, np.uint8) for column in zip(*rows, strict=True))
    return {
        "audio": np.concatenate(audio),
        "offsets": np.concatenate([[0], np.cumsum(sizes)]),
        "label": label,
        "speaker": speaker,
        "speaker_names": np.array(["ann", "bob"]),
        "take": take,
    }


def written(folder: Path, **changes: np.ndarray) -> str:
    content: dict[str, Any] = {**arrays(), **changes}
    np.savez(folder / "fsdd_8khz.npz", **content)
    return str(folder)


def load(folder: Path, **options: object) -> Task:
    return tasks.load("fsdd", data_dir=written(folder), **options)


def test_splits_are_by_take(cache: Path, tmp_path: Path):
    task = load(tmp_path, frame=4, length=64)
    assert [len(part) for part in task.splits.values()] == [40, 100, 100]
    for name, takes in (("test", range(5)), ("validation", range(5, 10)), ("train", range(10, 12))):
        part = task.splits[name]
        last = part.x[np.arange(len(part)), 0, 1]  # the second sample says who spoke, but for the ramp
        known = last < 20_000
        assert set((last[known] % 100).tolist()) == set(takes)
        np.testing.assert_array_equal(last[known] // 1000, part.y[known])
        assert np.bincount(part.y).tolist() == [SPEAKERS * len(takes)] * 10


def test_a_step_is_a_frame_of_consecutive_samples(cache: Path, tmp_path: Path):
    task = load(tmp_path, frame=2, length=7)
    assert (task.length, task.d_in, task.d_out) == (4, 2, 10)
    ramp = task.test.x[0]  # 5 samples: three steps, the last one half full; digit 0, speaker 0, take 0
    assert ramp.tolist() == [[20_000, 20_001], [20_002, 20_003], [20_004, 0], [0, 0]]
    assert task.test.lengths is not None and task.test.lengths[:2].tolist() == [3, 4]
    assert task.test.x[1].ravel().tolist() == [1] * 7 + [0]  # 12 samples, cut to 7
    expected = np.array([20_000 / 4096, 20_001 / 4096], np.float32)
    np.testing.assert_array_equal(task.encoding(ramp)[0], expected)


def test_copies_are_of_training_recordings_and_always_the_same(cache: Path, tmp_path: Path):
    plain, more = load(tmp_path, length=64), load(tmp_path, length=64, copies=2)
    assert more.identity == load(tmp_path, length=64, copies=2).identity
    assert more.identity != load(tmp_path, length=64, copies=2, copies_seed=1).identity
    for name in ("validation", "test"):
        assert more.splits[name].identity == plain.splits[name].identity
    n = len(plain.train)
    assert more.train.take(np.arange(n)).identity == plain.train.identity
    assert more.train.y.tolist() == plain.train.y.tolist() * 3
    assert len(np.unique(more.train.x.reshape(3 * n, -1), axis=0)) > 2 * n
    # Those of one take more or less, the order of the file, the frame: none changes what is drawn.
    few = load(tmp_path, length=64, copies=1, frame=8)
    np.testing.assert_array_equal(few.train.x.reshape(2 * n, -1), more.train.x[: 2 * n].reshape(2 * n, -1))


@pytest.mark.parametrize("seed", range(5))
def test_what_a_copy_may_be(seed: int):
    """A tone of 500 Hz in a copy: its pitch, its loudness and its noise stay within what is said."""
    t = np.arange(8000) / 8000
    tone = np.rint(3000 * np.sin(2 * np.pi * 500 * t)).astype(np.int16)
    found = fsdd.changed(tone, np.random.RandomState(seed))
    assert found.dtype == np.int16 and 8000 / 1.15 - 160 - 1 <= len(found) <= 8000 / 0.85 + 400 + 1
    middle = found[1000:6000].astype(float)
    power = np.abs(np.fft.rfft(middle * np.hanning(5000))) ** 2
    peak = np.argmax(power)
    assert 500 * 0.85 - 2 <= peak * 8000 / 5000 <= 500 * 1.15 + 2
    assert -9.5 <= 20 * np.log10(np.sqrt(np.mean(middle**2)) / (3000 / np.sqrt(2))) <= 9.5
    rest = np.delete(power, np.arange(peak - 4, peak + 5)).sum() / power.sum()
    assert 14 <= -10 * np.log10(rest) <= 41


def test_selection_on_the_test_split(cache: Path, tmp_path: Path):
    task = load(tmp_path, selection="test")
    assert task.validation is task.test and task.selection == PAPER and len(task.train) == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": np.zeros(8000, np.float32)}, r"8khz\.npz: expected audio \(T,\) int16, .*float32"),
        ({"take": np.zeros(3, np.uint8)}, r"expected audio .*'take': \(\(3,\), 'uint8'\)"),
        ({"offsets": np.arange(241)}, "expected offsets that rise from 0 to .*in steps of 1"),
        ({"offsets": arrays()["offsets"] + 1}, "expected offsets that rise from 0 to .* got 1 to"),
        ({"label": np.full(240, 11, np.uint8)}, "expected labels from 0 to 9, got 11 to 11"),
        ({"take": np.full(240, 7, np.uint8)}, r"expected takes 0 to 4 \(test\).*got none for test"),
    ],
)
def test_other_files_are_refused(changes: dict[str, np.ndarray], message: str, cache: Path, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        tasks.load("fsdd", data_dir=written(tmp_path, **changes))


def test_missing_and_damaged_files_are_named(cache: Path, tmp_path: Path):
    with pytest.raises(
        DataError, match=r"fsdd: expected fsdd_8khz\.npz below --data-dir .*join the recordings"
    ):
        tasks.load("fsdd", data_dir=str(tmp_path))
    (tmp_path / "fsdd").mkdir()
    (tmp_path / "fsdd" / "fsdd_8khz.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"8khz\.npz: expected a complete \.npz file"):
        tasks.load("fsdd", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "option", [{"frame": 0}, {"frame": 257}, {"length": 0}, {"copies": -1}, {"copies": True}]
)
def test_impossible_options_are_refused(option: dict[str, int], cache: Path, tmp_path: Path):
    with pytest.raises(DataError, match=f"fsdd: expected {next(iter(option))} to be a whole number"):
        load(tmp_path, **option)


def test_a_part_of_the_data_set_is_noticed(cache: Path, tmp_path: Path):
    _, rows = checks.check("fsdd", data_dir=written(tmp_path))
    wrong = {row.what: (row.got, row.expected) for row in rows if not row.right}
    assert wrong["train: sequences"] == ("40", "2400")
    assert wrong["labels, over all splits"] == ("24 " * 9 + "24", "300 " * 9 + "300")


@pytest.mark.slow
def test_the_real_recordings_are_as_published(cache: Path):
    """300 recordings of each digit, 500 of each speaker, takes 0 to 49; takes 0 to 4 are the data set's test split."""
    path = next(
        (p for p in (Path(REAL_DATA or "/nowhere") / d / fsdd.FILE for d in ("", "fsdd")) if p.exists()), None
    )
    if path is None:
        pytest.skip("needs fsdd_8khz.npz in $QS5_DATA")
    with np.load(path) as file:
        stored = {name: file[name] for name in file.files}
    assert np.bincount(stored["speaker"]).tolist() == [500] * 6
    assert np.bincount(stored["take"]).tolist() == [60] * 50
    task, rows = checks.check("fsdd", data_dir=str(path.parent))
    assert all(row.right for row in rows)
    assert [np.bincount(part.y).tolist() for part in task.splits.values()] == [
        [240] * 10,
        [30] * 10,
        [30] * 10,
    ]
    # Every recording of the test split, sample by sample, found by hand.
    rows_of_test = [k for k in range(3000) if stored["take"][k] <= 4]
    for row in permutation(300, seed=0, epoch=0)[:40]:
        k = rows_of_test[row]
        a = stored["audio"][stored["offsets"][k] : stored["offsets"][k + 1]][:6400]
        flat = task.test.x[row].ravel()
        np.testing.assert_array_equal(flat[: len(a)], a)
        assert not flat[len(a) :].any() and task.test.y[row] == stored["label"][k]
