import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from tests import originals

from qs5 import tasks
from qs5.tasks import DataError, scifar
from qs5.tasks.places import find
from qs5.tasks.task import PAPER

REAL_DATA = os.environ.get("QS5_DATA")


def real(name: str) -> Path:
    """A file of the real data, or a skip with the reason."""
    found = find([name, f"cifar10/{name}"], [Path(REAL_DATA or "/nowhere")])
    if found is None:
        pytest.skip(f"needs {name} in $QS5_DATA")
    return found


def test_binary_batches(cache: Path, tmp_path: Path):
    originals.cifar_folder(tmp_path / "cifar10")
    task = tasks.load("scifar", data_dir=str(tmp_path), download=False)
    assert (task.name, task.length, task.d_in, task.d_out) == ("scifar", 1024, 1, 10)
    assert [len(part) for part in task.splits.values()] == [18, 2, 2]
    assert task.test.y.tolist() == [0, 1]
    # 0.299 R + 0.587 G + 0.114 B with R, G, B = 40, 80, 120, and no blue in the last pixel
    assert task.test.x[0, 0, 0] == round(0.299 * 40 + 0.587 * 80 + 0.114 * 120) == 73
    assert task.test.x[0, -1, 0] == round(0.299 * 40 + 0.587 * 80) == 59
    encoded = task.encoding(task.test.x)
    assert encoded[0, 0, 0] == pytest.approx((73 / 255 - 122.6 / 255) / (61 / 255), rel=1e-6)
    everything = np.concatenate([task.train.y, task.validation.y])
    assert sorted(everything.tolist()) == sorted(n % 10 for n in range(4, 24))


def test_the_archive_is_fetched_and_gives_the_same(
    server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    originals.cifar_folder(tmp_path)
    server.files[scifar.ARCHIVE] = originals.cifar_archive()
    monkeypatch.setattr(scifar, "ARCHIVE_MD5", hashlib.md5(server.files[scifar.ARCHIVE]).hexdigest())
    found = {tasks.load("scifar", base_url=server.url).identity for _ in range(2)}
    assert server.requests == [scifar.ARCHIVE]
    assert found == {tasks.load("scifar", data_dir=str(tmp_path)).identity}


def test_selection_on_the_test_split(cache: Path, tmp_path: Path):
    originals.cifar_folder(tmp_path)
    task = tasks.load("scifar", data_dir=str(tmp_path), selection="test")
    assert len(task.train) == 18 and task.validation is task.test and task.selection == PAPER


def test_greyscale_is_that_of_pillow():
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    theirs = np.asarray(image.fromarray(pixels).convert("L"))
    mine = scifar.grey(pixels.reshape(1, -1, 3).transpose(0, 2, 1))
    np.testing.assert_array_equal(mine.reshape(50, 40), theirs)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], r"data_batch_3\.bin: expected rows of 3073 bytes .* got 12291 bytes"),
        (lambda content: b"", "expected rows of 3073 bytes .* got 0 bytes"),
        (lambda content: b"\x0a" + content[1:], "expected labels from 0 to 9, got 10"),
    ],
)
def test_damaged_batches_are_refused(damage, message: str, cache: Path, tmp_path: Path):
    originals.cifar_folder(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=message):
        tasks.load("scifar", data_dir=str(tmp_path))


def test_missing_batches_are_named_with_their_place(cache: Path, tmp_path: Path):
    originals.cifar_folder(tmp_path)
    folder = tmp_path / scifar.FOLDER
    for name in ("data_batch_3.bin", "test_batch.bin"):
        (folder / name).unlink()
    with pytest.raises(DataError) as caught:
        tasks.load("scifar", data_dir=str(tmp_path))
    message = str(caught.value)
    assert f"in {folder}, got no data_batch_3.bin, no test_batch.bin; put what is missing there" in message
    assert scifar.ARCHIVE in message and scifar.URL in message and "permissions" not in message


def test_other_problems_are_named(cache: Path, tmp_path: Path):
    with pytest.raises(
        DataError, match=r"expected the folder cifar-10-batches-bin, .*download is switched off"
    ):
        tasks.load("scifar", data_dir=str(tmp_path), download=False)
    (tmp_path / scifar.ARCHIVE).write_bytes(originals.cifar_archive()[:-50])
    with pytest.raises(DataError, match="expected a complete tar archive"):
        tasks.load("scifar", data_dir=str(tmp_path))
    (tmp_path / scifar.ARCHIVE).unlink()
    np.savez(tmp_path / scifar.GREY, x_train=np.zeros((3, 32, 32), np.uint8), y_train=np.zeros(2, np.uint8))
    with pytest.raises(DataError, match=r"expected x_train \(N, 32, 32\) uint8 and y_train .*\(3, 32, 32\)"):
        tasks.load("scifar", data_dir=str(tmp_path))
    (tmp_path / scifar.GREY).write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"jpeg\.npz: expected a complete \.npz file"):
        tasks.load("scifar", data_dir=str(tmp_path))


@pytest.mark.slow
def test_real_labels_and_pixels(cache: Path):
    """Against figures of CIFAR-10's page, and the lossless images of another copy."""
    path, lossless = real(scifar.GREY), real("cifar10_rgb_lossless_train4000.npz")
    images = scifar._read(path)
    assert [np.bincount(images[name][1]).tolist() for name in ("train", "test")] == [[5000] * 10, [1000] * 10]
    with np.load(lossless) as file:
        rgb, labels = file["x_train"], file["y_train"]
    np.testing.assert_array_equal(images["train"][1][:4000], labels)
    rows = np.concatenate([labels[:, None], rgb.transpose(0, 3, 1, 2).reshape(4000, -1)], axis=1)
    exact, parsed = scifar.parse_batch(rows.astype(np.uint8).tobytes(), name="made")
    np.testing.assert_array_equal(parsed, labels)
    error = np.abs(exact.astype(int) - images["train"][0][:4000])
    assert error.mean() == pytest.approx(
        4.04, abs=0.005
    )  # what JPEG cost, as measured when the file was packed
    task = tasks.load("scifar", data_dir=str(path.parent), download=False)
    assert task.name == "scifar-jpeg" and [len(s) for s in task.splits.values()] == [45_000, 5_000, 10_000]
