"""`digits`: scikit-learn's 8x8 handwritten digits, read row by row as 64 steps of one channel.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998; the 1797 images of
its test part), as shipped inside scikit-learn: no download. Trains in seconds: for tests and first steps.
"""

from __future__ import annotations

import numpy as np

from qs5.tasks.splits import stratified
from qs5.tasks.task import Encoding, Split, Task

SPLIT_SEED = 0
PEAK = 16  # stored values are ink counts in 0..16


def load_digits() -> Task:
    """The task `digits`: x (N, 64, 1) uint8 in 0..16, ten classes, stratified 70/15/15 with a fixed seed."""
    from sklearn.datasets import load_digits as load_bundled  # slow import, needed by this task only

    images, labels = load_bundled(return_X_y=True)
    x = np.asarray(images).astype(np.uint8)[:, :, None]
    data = Split(x=x, y=np.asarray(labels).astype(np.int32), lengths=None)
    train, validation, test = (data.take(index) for index in stratified(data.y, seed=SPLIT_SEED))
    return Task(
        name="digits",
        train=train,
        validation=validation,
        test=test,
        encoding=Encoding(scale=(1 / PEAK,), offset=(0.0,)),
        classes=tuple("0123456789"),
        units=None,
        objective="classification",
        metric="accuracy",
    )
