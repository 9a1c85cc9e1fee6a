"""Images in the manner of Pathfinder, of our own making: dashed paths, two of them long, two ends marked.

Every image holds two long paths and some short ones (distractors), none of which touch. Two ends are marked with a
disc: both ends of one long path (label 1), or one end of each (label 0). So an image's label depends on which dashes
follow each other, and the numbers of dashes and discs say nothing.

The sizes are those of the Long Range Arena's 32 x 32 images: dashes 2 long and 1 apart, discs of radius 1.5, long
paths of 14 dashes, five distractors of 14 // 3. How a path turns, keeps off others and is drawn is ours, so the images
are *not* the arena's, and accuracies on them are not to be compared with published ones.

Source: D. Linsley et al., 2018, for the task; `lra_benchmarks/data/pathfinder.py` for the sizes; the code is ours.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from qs5.files import write_beside
from qs5.tasks.errors import DataError
from qs5.tasks.pathfinder import MADE

SIDE = 32
BORDER = 2.0  # pixels that stay empty at the border
DASH, GAP = 2.0, 1.0  # pixels
THICKNESS, RADIUS = 1.0, 1.5
DASH_BRIGHTNESS, DISC_BRIGHTNESS = 0.75, 1.0
CLEARANCE = (
    2.6  # distance of dashes that do not follow each other, up to a cell: more than the gap of those that do
)
CELLS = 4  # a pixel, of the map of occupied places
TURNS = 12  # directions tried for a dash before the path is given up
RESTARTS = 60  # paths given up before the image is
POINTS = 5  # along a dash, that stand for it on the map

Path2D = np.ndarray
"""Ends of the dashes of a path in order, (dashes, 2, 2) as (x, y) pixels."""


@dataclass(frozen=True, kw_only=True)
class PathfinderOptions:
    """What `make` draws."""

    images: int = 20_000
    contour: int = 14
    """Dashes of the two long paths."""
    distractors: int = 5
    """Short paths, each of a third of the dashes of a long one."""
    turn: float = 1.0
    """Largest change of direction from dash to dash, in radians."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Scene:
    """The geometry of an image: all paths, the long ones first; the two marked points (2, 2); the label."""

    paths: tuple[Path2D, ...]
    marks: np.ndarray
    label: int


def check_options(o: PathfinderOptions) -> None:
    """Raises DataError for sizes that no image can have."""
    if (
        o.images < 10
        or not 2 <= o.contour <= 20
        or not 0 <= o.distractors <= 8
        or not 0.2 <= o.turn <= math.pi
    ):
        raise DataError(
            "pathfinder: expected at least 10 images, 2 to 20 dashes, 0 to 8 distractors and a turn from 0.2 to pi, "
            f"got {o}; correct the options"
        )


def draw_scene(random: np.random.RandomState, o: PathfinderOptions) -> Scene:
    """A random scene."""
    counts = [o.contour, o.contour] + [max(o.contour // 3, 1)] * o.distractors
    while True:
        paths: list[Path2D] = []
        occupied, restarts = np.zeros((SIDE * CELLS,) * 2, bool), 0
        while len(paths) < len(counts) and restarts < RESTARTS:
            path = _draw_path(random, counts[len(paths)], occupied.copy(), o.turn)
            if path is None:
                restarts += 1
            else:
                paths.append(path)
                for dash in path:
                    _occupy(occupied, dash)
        if len(paths) == len(counts):
            return _marked(random, tuple(paths))


def _marked(random: np.random.RandomState, paths: tuple[Path2D, ...]) -> Scene:
    label = int(random.randint(2))
    ends = [(path[0, 0], path[-1, 1]) for path in paths[:2]]
    if label:
        return Scene(paths, np.stack(ends[random.randint(2)]), 1)
    return Scene(paths, np.stack([end[random.randint(2)] for end in ends]), 0)


def _draw_path(random: np.random.RandomState, count: int, occupied: np.ndarray, turn: float) -> Path2D | None:
    """A path of `count` dashes that keeps off occupied cells and off itself; None where it got stuck.

    The cells of its own dashes are added to `occupied`, but those of the last one, which its successor is next to.
    """
    free = np.argwhere(~occupied & _INSIDE)
    if not len(free):
        return None
    begin = (free[random.randint(len(free)), ::-1] + 0.5) / CELLS
    direction = 0.0
    dashes: list[np.ndarray] = []
    for n in range(count):
        widest = turn if n else math.pi
        for angle in direction + random.uniform(-widest, widest, TURNS):
            along = np.array([math.cos(angle), math.sin(angle)])
            start = dashes[-1][1] + GAP * along if n else begin
            dash = np.stack([start, start + DASH * along])
            if _fits(dash, occupied):
                break
        else:
            return None
        if n:
            _occupy(occupied, dashes[-1])
        direction = angle
        dashes.append(dash)
    return np.stack(dashes)


def _fits(dash: np.ndarray, occupied: np.ndarray) -> bool:
    if dash.min() < BORDER or dash.max() > SIDE - BORDER:
        return False
    x, y = _cells(dash).T
    return not occupied[y, x].any()


def _occupy(occupied: np.ndarray, dash: np.ndarray) -> None:
    """Mark what is nearer to a dash than the clearance. No dash lies near the border: cells beyond it do not matter."""
    reach = len(_DISC) // 2
    for x, y in _cells(dash).tolist():
        top, left = max(y - reach, 0), max(x - reach, 0)
        part = occupied[top : y + reach + 1, left : x + reach + 1]
        part |= _DISC[top - y + reach :, left - x + reach :][: part.shape[0], : part.shape[1]]


def _cells(dash: np.ndarray) -> np.ndarray:
    """The cells of points along a dash, (POINTS, 2)."""
    points = dash[0] + _ALONG * (dash[1] - dash[0])
    return (CELLS * points).astype(np.int64)


def _disc() -> np.ndarray:
    """Which cells about one are nearer than the clearance."""
    offsets = np.arange(-math.ceil(CLEARANCE * CELLS), math.ceil(CLEARANCE * CELLS) + 1)
    return np.hypot(offsets[:, None], offsets[None, :]) < CLEARANCE * CELLS


_DISC = _disc()
_ALONG = np.linspace(0.0, 1.0, POINTS)[:, None]
_INSIDE = np.pad(np.ones((int((SIDE - 2 * BORDER) * CELLS),) * 2, bool), int(BORDER * CELLS))


def render(scene: Scene) -> np.ndarray:
    """The image (32, 32) uint8. A pixel is as bright as it is covered, by its centre's distance from the edge."""
    centres = np.stack(np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5), axis=-1).reshape(-1, 1, 2)
    dashes = np.concatenate(scene.paths)
    begin, along = dashes[None, :, 0], dashes[None, :, 1] - dashes[None, :, 0]
    at = np.clip(np.sum((centres - begin) * along, axis=-1) / DASH**2, 0.0, 1.0)
    to_dash = np.linalg.norm(centres - begin - at[..., None] * along, axis=-1).min(axis=1)
    to_mark = np.linalg.norm(centres - scene.marks[None], axis=-1).min(axis=1)
    dashed = DASH_BRIGHTNESS * np.clip(THICKNESS / 2 + 0.5 - to_dash, 0.0, 1.0)
    discs = DISC_BRIGHTNESS * np.clip(RADIUS + 0.5 - to_mark, 0.0, 1.0)
    return np.round(255.0 * np.maximum(dashed, discs)).astype(np.uint8).reshape(SIDE, SIDE)


def make(
    folder: Path, options: PathfinderOptions, *, progress: Callable[[int, int], None] = lambda *_: None
) -> Path:
    """Write `pathfinder_qs5.npz` into `folder`: x (N, 32, 32) uint8, y (N,), note. A function of the options alone.

    progress: called with (images drawn, images in all). Raises DataError for impossible options.
    """
    check_options(options)
    random = np.random.RandomState(options.seed)
    x, y = np.empty((options.images, SIDE, SIDE), np.uint8), np.empty(options.images, np.uint8)
    for n in range(options.images):
        scene = draw_scene(random, options)
        x[n], y[n] = render(scene), scene.label
        progress(n + 1, options.images)
    note = {"made_by": "qs5 data make pathfinder; not the Long Range Arena's images", **asdict(options)}
    content = io.BytesIO()
    np.savez_compressed(content, x=x, y=y, note=np.array(json.dumps(note)))
    write_beside(folder / MADE, content.getvalue())
    return folder / MADE
