import gzip
import hashlib
import os
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from qs5 import tasks
from qs5.tasks import DataError, idx, places, smnist

EMBEDDED_IDENTITY = "e88c7bce952785fbb1f1ad25a28c75171d8d55306171cca0fdd655ec6fd9504b"
FULL_IDENTITY = "2f533d6faf901ab4f62092fae7c37f08841c67bbccc49a570ab40f87a03b1555"
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
N = 20

REAL_DATA = Path(os.environ.get("QS5_DATA", ""))
full_data = pytest.mark.skipif(
    "QS5_DATA" not in os.environ, reason="needs MNIST's training files in $QS5_DATA"
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Stand-ins for the training files, N images, with their digests registered; their gzip content."""
    random = np.random.default_rng(0)
    plain = {
        IMAGES: idx.write(random.integers(0, 256, (N, 28, 28), np.uint8)),
        LABELS: idx.write(np.arange(N, dtype=np.uint8) % 10),
    }
    packed = {name: gzip.compress(content, mtime=0) for name, content in plain.items()}
    for attribute, name, axes in (("IMAGES", IMAGES, 3), ("LABELS", LABELS, 1)):
        md5 = hashlib.md5(packed[name]).hexdigest()
        sha256 = hashlib.sha256(plain[name]).hexdigest()
        file = smnist.IdxFile(name=name, axes=axes, md5=md5, sha256=sha256)
        monkeypatch.setattr(smnist, attribute, file)
    return packed


def put(directory: Path, files: dict[str, bytes]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)


# ---- the files in the package ----


def test_package_files_have_the_md5s_of_the_attribution():
    data = resources.files("qs5.tasks") / "data" / "mnist"
    listed = dict(re.findall(r"`(\S+\.gz)`.*\b([0-9a-f]{32})\b", (data / "ATTRIBUTION.md").read_text()))
    found = {
        file.name: hashlib.md5(file.read_bytes()).hexdigest()
        for file in data.iterdir()
        if file.name.endswith(".gz")
    }
    assert len(found) == 4
    assert listed == found
    assert found["t10k-images-idx3-ubyte.gz"] == "9fb629c4189551a2d022fa330f9573f3"
    assert found["t10k-labels-idx1-ubyte.gz"] == "ec29112dd5afa0611ce80d1b7f02629c"


def test_embedded_needs_no_files(cache: Path):
    task = tasks.load("smnist", parts="embedded")
    assert task.name == "smnist"
    assert (task.length, task.d_in, task.d_out) == (784, 1, 10)
    assert [len(part) for part in task.splits.values()] == [512, 512, 10_000]
    assert task.train is task.validation
    assert task.identity == EMBEDDED_IDENTITY
    assert not cache.exists()


def test_the_test_images_are_mnist():
    test = tasks.load("smnist", parts="embedded").test
    assert test.x.dtype == np.uint8
    assert round(float(test.x.mean()), 4) == 33.7912
    assert test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_pixels_are_read_row_by_row():
    test = tasks.load("smnist", parts="embedded").test
    image = test.x[0].reshape(28, 28)  # a seven: a horizontal bar on top, nothing below it at the left
    assert image[8, 6:22].all()
    assert not image[12:, :8].any()


def test_calibration_images_are_balanced():
    assert np.bincount(smnist.embedded("calibration").y).tolist() == [52, 52] + [51] * 8


def test_encoding_maps_to_0_and_1():
    task = tasks.load("smnist", parts="embedded")
    encoded = task.encoding(task.train.x)
    assert (encoded.min(), encoded.max()) == (0.0, 1.0)


# ---- finding, downloading and checking the training files ----


@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
def test_files_are_found_in_data_dir(below: str, tiny: dict, cache: Path, tmp_path: Path):
    put(tmp_path / "data" / below, tiny)
    task = tasks.load("smnist", data_dir=str(tmp_path / "data"), download=False)
    assert [len(part) for part in task.splits.values()] == [18, 2, 10_000]
    assert not cache.exists()


def test_files_are_found_through_the_environment(
    tiny: dict, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    put(
        tmp_path / "data",
        {name.removesuffix(".gz"): gzip.decompress(content) for name, content in tiny.items()},
    )
    monkeypatch.setenv("QS5_DATA", str(tmp_path / "data"))
    assert len(tasks.load("smnist", download=False).train) == 18


def test_data_dir_goes_before_the_environment(
    tiny: dict, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    put(tmp_path / "good", tiny)
    put(tmp_path / "bad", dict.fromkeys(tiny, b"bad"))
    monkeypatch.setenv("QS5_DATA", str(tmp_path / "bad"))
    assert len(tasks.load("smnist", data_dir=str(tmp_path / "good")).train) == 18


def test_images_keep_their_labels(tiny: dict, cache: Path, tmp_path: Path):
    put(tmp_path / "data", tiny)
    task = tasks.load("smnist", data_dir=str(tmp_path / "data"))
    images = idx.parse(gzip.decompress(tiny[IMAGES]), name="images", axes=3).reshape(N, 784)
    seen = []
    for part in (task.train, task.validation):
        for x, y in zip(part.x[:, :, 0], part.y, strict=True):
            seen.append(int(np.flatnonzero((images == x).all(axis=1))[0]))
            assert y == seen[-1] % 10
    assert sorted(seen) == list(range(N))
    assert seen != sorted(seen)


def test_missing_files_are_downloaded_once(server, tiny: dict, cache: Path):
    server.files = {f"mnist/{name}": content for name, content in tiny.items()}
    for _ in range(2):
        assert len(tasks.load("smnist", base_url=server.url + "mnist").train) == 18
    assert server.requests == [f"mnist/{IMAGES}", f"mnist/{LABELS}"]
    assert sorted(path.name for path in (cache / "mnist").iterdir()) == [IMAGES, LABELS]


def test_a_wrong_download_says_how_to_get_the_files(server, tiny: dict, cache: Path):
    server.files = {IMAGES: tiny[LABELS], LABELS: tiny[LABELS]}
    with pytest.raises(DataError) as caught:
        tasks.load("smnist", base_url=server.url)
    message = str(caught.value)
    assert "expected a file with MD5" in message
    for needed in (IMAGES, LABELS, "data_dir", "$QS5_DATA", str(cache / "mnist"), 'parts="embedded"'):
        assert needed in message
    assert "\n" not in message
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_download_can_be_switched_off(server, tiny: dict, cache: Path):
    server.files = tiny
    with pytest.raises(DataError, match="download is switched off"):
        tasks.load("smnist", base_url=server.url, download=False)
    assert server.requests == []


def test_other_data_under_the_same_name_is_refused(tiny: dict, cache: Path, tmp_path: Path):
    other = gzip.compress(idx.write(np.zeros((N, 28, 28), np.uint8)))
    put(tmp_path / "data", tiny | {IMAGES: other})
    with pytest.raises(DataError, match="expected MNIST's own data"):
        tasks.load("smnist", data_dir=str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-9], "complete gzip file"),
        (lambda content: gzip.decompress(content)[:-1], "truncated"),
        (lambda content: b"\x89PNG" + content, "expected the idx header 00000803 .*got 89504e47"),
    ],
)
def test_a_damaged_file_is_refused(damage, message: str, tiny: dict, cache: Path, tmp_path: Path):
    put(tmp_path / "data", tiny | {IMAGES: damage(tiny[IMAGES])})
    with pytest.raises(DataError, match=rf"data/{IMAGES}: .*{message}"):
        tasks.load("smnist", data_dir=str(tmp_path / "data"))


def test_an_unreadable_file_is_reported(
    tiny: dict, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    put(tmp_path, tiny)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=f"expected a readable file, got .*Permission denied.*{IMAGES}"):
        tasks.load("smnist", data_dir=str(tmp_path))


def test_a_mistyped_data_dir_is_not_ignored(cache: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"expected data_dir to be a directory, got .*typo"):
        tasks.load("smnist", data_dir=str(tmp_path / "typo"))


def test_parts_are_checked():
    with pytest.raises(DataError, match="expected parts to be one of full, embedded, got 'half'"):
        tasks.load("smnist", parts="half")


# ---- the complete data set ----


@full_data
def test_full_data_is_mnist():
    task = tasks.load("smnist")
    assert [len(part) for part in task.splits.values()] == [54_000, 6_000, 10_000]
    assert task.identity == FULL_IDENTITY
    counts = np.bincount(task.train.y) + np.bincount(task.validation.y)
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    pixels = np.concatenate([task.train.x, task.validation.x])
    assert round(float(pixels.mean()), 4) == 33.3184
    assert round(float(pixels.std()), 4) == 78.5675


@full_data
def test_first_training_labels():
    labels = smnist._read_original(smnist.LABELS, data_dir=None, base_url="", download=False)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]


@full_data
def test_calibration_images_are_in_the_training_split_only():
    task = tasks.load("smnist")
    calibration = {x.tobytes() for x in smnist.embedded("calibration").x}
    assert len(calibration) == 512
    assert calibration <= {x.tobytes() for x in task.train.x}
    assert not calibration & {x.tobytes() for x in task.validation.x}
    assert task.test.identity == tasks.load("smnist", parts="embedded").test.identity


@full_data
def test_real_files_pass_the_checks_of_the_download(server, cache: Path, monkeypatch: pytest.MonkeyPatch):
    root = REAL_DATA
    paths = [places.find([name], [root / sub for sub in smnist.SUBDIRECTORIES]) for name in (IMAGES, LABELS)]
    server.files = {
        path.name: path.read_bytes() for path in paths if path is not None and path.suffix == ".gz"
    }
    if len(server.files) < 2:
        pytest.skip("$QS5_DATA holds plain files")
    assert tasks.load("smnist", base_url=server.url).identity == FULL_IDENTITY
