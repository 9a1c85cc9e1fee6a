"""What is known of the published data sets, and whether the files that are there agree with it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import numpy as np

from qs5 import tasks
from qs5.tasks.task import VALIDATION, Split, Task


@dataclass(frozen=True, kw_only=True)
class Published:
    """Sequences of train, validation and test (as the loaders divide them by default), and of each label over all."""

    sizes: tuple[int, int, int]
    labels: tuple[int, ...] | None = None


# MNIST, CIFAR-10, IMDB and FSDD: their authors. The rest: the appendix of "Simplified State Space Layers for Sequence
# Modeling" (Smith et al., 2023), which does not give the counts of labels.
PUBLISHED = {
    "smnist": Published(
        sizes=(54_000, 6_000, 10_000),
        labels=(6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958),
    ),
    "text": Published(sizes=(22_500, 2_500, 25_000), labels=(25_000, 25_000)),
    "scifar": Published(sizes=(45_000, 5_000, 10_000), labels=(6_000,) * 10),
    "scifar-jpeg": Published(sizes=(45_000, 5_000, 10_000), labels=(6_000,) * 10),
    "listops": Published(sizes=(96_000, 2_000, 2_000)),
    "retrieval": Published(sizes=(147_086, 18_090, 17_437)),
    "pathfinder": Published(sizes=(160_000, 20_000, 20_000)),
    "pathx": Published(sizes=(160_000, 20_000, 20_000)),
    "fsdd": Published(sizes=(2_400, 300, 300), labels=(300,) * 10),
}
"""By the name of a task, which says where its data comes from: data that we make has another name."""


@dataclass(frozen=True)
class Row:
    """One thing that was counted. expected: None where nothing is published."""

    what: str
    got: str
    expected: str | None = None

    @property
    def right(self) -> bool:
        """Whether it is as published, or nothing is."""
        return self.expected is None or self.expected == self.got


def check(name: str, *, data_dir: str | None = None, **options: object) -> tuple[Task, list[Row]]:
    """Load a task, with every test of its files' content that its loader has, and count what is in it.

    Raises DataError for malformed files.
    """
    if "verify" in inspect.signature(tasks.loader(name)).parameters:
        options.setdefault("verify", True)
    task = tasks.load(name, data_dir=data_dir, **options)
    default = task.selection == VALIDATION
    published = PUBLISHED.get(task.name) if default else None
    rows = [
        Row(
            f"{split}: sequences",
            str(len(part)),
            None if published is None else str(published.sizes[i]),
        )
        for i, (split, part) in enumerate(task.splits.items())
    ]
    if task.classes is not None:
        found = sum(np.bincount(part.y, minlength=task.d_out) for part in task.splits.values())
        known = None if published is None or published.labels is None else _text(published.labels)
        rows.append(Row("labels, over all splits", _text(found), known))
    return task, [*rows, *_shape(task)]


def _shape(task: Task) -> list[Row]:
    train = task.train
    rows = [Row("stored", f"{train.x.shape[1:]} {train.x.dtype.name} a sequence")]
    if train.lengths is not None:
        rows.append(Row("lengths of train", _lengths(train)))
    if task.channels is not None:
        rows.append(Row("channels or tokens", str(len(task.channels))))
    return [*rows, Row("input channels of the model", str(task.d_in)), Row("identity", task.identity)]


def _lengths(split: Split) -> str:
    lengths = np.asarray(split.lengths)
    return f"{lengths.min()} to {lengths.max()}, median {int(np.median(lengths))}"


def _text(counts: object) -> str:
    return " ".join(str(int(n)) for n in np.asarray(counts))
