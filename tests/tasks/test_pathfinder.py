from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tests import originals

from qs5 import tasks
from qs5.tasks import DataError
from qs5.tasks.pathfinder_make import (
    DASH,
    GAP,
    RADIUS,
    PathfinderOptions,
    Scene,
    draw_scene,
    make,
    render,
)
from qs5.tasks.task import PAPER

SMALL = PathfinderOptions(images=12, seed=4)


def load(base: Path, name: str = "pathfinder", **options: Any) -> tasks.Task:
    return tasks.load(name, data_dir=str(base), **options)


# ---- the loader ----


@pytest.mark.parametrize(("name", "side"), [("pathfinder", 32), ("pathx", 128)])
def test_images_of_the_release(name: str, side: int, tmp_path: Path, cache: Path):
    originals.pathfinder_tree(tmp_path / "lra_release", side)
    task = load(tmp_path, name)
    assert (task.name, task.length, task.d_in, task.classes) == (name, side * side, 1, ("apart", "joined"))
    assert [len(part) for part in task.splits.values()] == [16, 2, 2]
    x, y = (np.concatenate([getattr(part, field) for part in task.splits.values()]) for field in ("x", "y"))
    assert sorted(x[:, 0, 0].tolist()) == list(range(20))
    np.testing.assert_array_equal(x[:, 0, 0] % 2, y)
    n = x[:, 0, 0].astype(int)
    for pixel in (1, side - 1, side, 5 * side + 2, side * side - 1):
        np.testing.assert_array_equal(x[:, pixel, 0], n**2 * (pixel // side + 1) % 256)
    assert task.encoding(np.array([[0], [255]], np.uint8)).ravel().tolist() == pytest.approx([-1.0, 1.0])


def test_the_order_of_the_images_is_that_of_the_numbered_files(tmp_path: Path, cache: Path):
    from qs5.tasks.pathfinder import _tree

    originals.pathfinder_tree(tmp_path)
    found = _tree(tmp_path / "pathfinder32" / "curv_contour_length_14", 32)
    assert found.x[:, 0, 0].tolist() == list(range(20))


def test_selection_on_the_test_split(tmp_path: Path, cache: Path):
    originals.pathfinder_tree(tmp_path)
    task = load(tmp_path, selection="test")
    assert task.validation is task.test and task.selection == PAPER and len(task.train) == 16


def damage_line(folder: Path) -> None:
    (folder / "metadata" / "2.npy").write_text("imgs/2 sample_0.png 0 2\n")


def damage_image(folder: Path) -> None:
    (folder / "imgs" / "2" / "sample_1.png").write_bytes(b"\x89PNG\r\n")


def shrink_image(folder: Path) -> None:
    (folder / "imgs" / "2" / "sample_1.png").write_bytes(originals.png([bytes(31)] * 31))


def lose_image(folder: Path) -> None:
    (folder / "imgs" / "2" / "sample_1.png").unlink()


def lose_metadata(folder: Path) -> None:
    (folder / "metadata" / "2.npy").unlink()
    (folder / "metadata" / "10.npy").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_line, r"2\.npy, line 1: expected folder, file, number and label 0 or 1"),
        (damage_image, r"sample_1\.png: expected a PNG image"),
        (shrink_image, r"sample_1\.png: expected 32 x 32 pixels, got \(31, 31\)"),
        (lose_image, r"sample_1\.png: expected a PNG image, got .*No such file"),
        (lose_metadata, r"expected files metadata/0\.npy"),
    ],
)
def test_damaged_data_is_refused(damage: Any, message: str, tmp_path: Path, cache: Path):
    originals.pathfinder_tree(tmp_path)
    damage(tmp_path / "pathfinder32" / "curv_contour_length_14")
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path, cache: Path):
    with pytest.raises(
        DataError, match=r"pathfinder32/curv_contour_length_14.*lra_release.*qs5 data make pathf"
    ):
        load(tmp_path)
    with pytest.raises(DataError, match=r"pathfinder128/curv_contour_length_14.*take pathfinder128/ out of"):
        load(tmp_path, "pathx")


# ---- images of our own ----


def test_made_images_say_that_they_are_ours(tmp_path: Path, cache: Path):
    path = make(tmp_path / "a", SMALL)
    assert path.read_bytes() == make(tmp_path / "b", SMALL).read_bytes()
    with np.load(path) as file:
        assert "not the Long Range Arena" in str(file["note"])
        assert file["x"].shape == (12, 32, 32)
    task = load(tmp_path / "a")
    assert task.name == "pathfinder-qs5" and [len(part) for part in task.splits.values()] == [10, 1, 1]
    np.savez(path, x=np.zeros((12, 32, 32)), y=np.zeros(12))
    with pytest.raises(DataError, match=r"pathfinder_qs5\.npz: expected x \(N, 32, 32\) uint8"):
        load(tmp_path / "a")
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"pathfinder_qs5\.npz: expected a complete \.npz file"):
        load(tmp_path / "a")


def scenes(n: int) -> list[Scene]:
    random = np.random.RandomState(0)
    return [draw_scene(random, PathfinderOptions()) for _ in range(n)]


def test_the_label_says_whether_dashes_join_the_marks():
    """From the dashes alone: those whose ends are a gap apart are neighbours, and paths are connected components."""
    found = scenes(24)
    for scene in found:
        dashes = np.concatenate(scene.paths)
        assert len(dashes) == 14 + 14 + 5 * 4
        ends = dashes.reshape(-1, 2)
        apart = np.linalg.norm(ends[:, None] - ends[None], axis=-1)
        first, second = np.nonzero(apart < GAP + 0.01)
        count, component = connected_components(
            coo_matrix((np.ones(len(first)), (first // 2, second // 2)), shape=(len(dashes),) * 2)
        )
        assert count == 7 and sorted(np.bincount(component).tolist()) == [4] * 5 + [14] * 2
        marked = [int(np.argmin(np.linalg.norm(ends - mark, axis=-1))) for mark in scene.marks]
        joined = component[marked[0] // 2] == component[marked[1] // 2]
        assert joined == bool(scene.label) and marked[0] != marked[1]
    assert 4 < sum(scene.label for scene in found) < 20


def test_paths_keep_off_each_other_and_turn_gently():
    for scene in scenes(8):
        points = [np.linspace(path[:, 0], path[:, 1], 9, axis=1).reshape(-1, 2) for path in scene.paths]
        for i, mine in enumerate(points):
            assert mine.min() >= 2.0 and mine.max() <= 30.0
            for other in points[i + 1 :]:
                assert np.linalg.norm(mine[:, None] - other[None], axis=-1).min() > 2.0
        for path in scene.paths:
            along = path[:, 1] - path[:, 0]
            np.testing.assert_allclose(np.linalg.norm(along, axis=-1), DASH)
            np.testing.assert_allclose(np.linalg.norm(path[1:, 0] - path[:-1, 1], axis=-1), GAP)
            cosine = np.sum(along[1:] * along[:-1], axis=-1) / DASH**2
            assert (np.arccos(np.clip(cosine, -1, 1)) <= 1.0 + 1e-6).all()


def test_an_image_shows_its_scene():
    for scene in scenes(4):
        image = render(scene)
        assert image.dtype == np.uint8 and image.shape == (32, 32)
        for x, y in np.concatenate(scene.paths).mean(axis=1):
            assert image[int(y), int(x)] > 40  # at most half a pixel's diagonal from the dash
        for x, y in scene.marks:
            assert image[int(y), int(x)] == 255
        centres = np.stack(np.meshgrid(np.arange(32) + 0.5, np.arange(32) + 0.5), axis=-1)
        begin, end = np.moveaxis(np.concatenate(scene.paths), 1, 0)
        points = np.linspace(begin, end, 9).reshape(-1, 2)
        off_dashes = np.linalg.norm(centres[:, :, None] - points, axis=-1).min(axis=-1) > 1.2
        off_marks = np.linalg.norm(centres[:, :, None] - scene.marks, axis=-1).min(axis=-1) > RADIUS + 0.5
        assert not image[off_dashes & off_marks].any()


def test_impossible_options_are_refused(tmp_path: Path):
    impossible: list[dict[str, Any]] = [{"images": 9}, {"contour": 1}, {"distractors": 9}, {"turn": 0.0}]
    for changes in impossible:
        with pytest.raises(DataError, match="pathfinder: expected at least 10 images"):
            make(tmp_path, PathfinderOptions(**changes))
