"""Judging an integer model: against the reference, one sequence at a time."""

import dataclasses

import numpy as np
from tests.conformance.models import random_sequences
from tests.integer.small import classifier, dense, regression, signal
from tests.support import small_task

from qs5 import integer
from qs5.backends import reference
from qs5.integer.model import IntegerModel
from qs5.search.measure import judge
from qs5.tasks.task import Encoding, Split, Task

N, L = 13, 9


def task_of(model: IntegerModel, y: np.ndarray, lengths: np.ndarray | None, **changes: object) -> Task:
    x = np.stack(random_sequences(model, seed=4, lengths=(L,) * N)).astype(np.int16)
    split, d = Split(x=x, y=y, lengths=lengths), x.shape[-1]
    encoding = Encoding(scale=(1.0,) * d, offset=(0.0,) * d)
    return small_task(train=split, validation=split, test=split, encoding=encoding, **changes)


def test_a_classifier_by_its_labels():
    model = dataclasses.replace(classifier(), description=integer.IntegerModel.description)
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, L + 1, N).astype(np.int32)
    task = task_of(model, rng.integers(0, 3, N).astype(np.int32), lengths)
    codes = np.stack(
        [
            reference.logits(model, x[None, :n].astype(np.int64))[0]
            for x, n in zip(task.test.x, lengths, strict=True)
        ]
    )
    seen: list[tuple[int, int]] = []
    judged = judge(model, task, task.test, progress=lambda done, total: seen.append((done, total)))
    assert 0.0 < judged.metric < 1.0
    assert judged.metric == np.mean([np.argmax(c) == y for c, y in zip(codes, task.test.y, strict=True)])
    np.testing.assert_array_equal(judged.outputs, codes / 8)  # the logits' exponent is -3
    assert seen == [(N, N)] and judged.seconds >= 0.0


def test_a_regression_in_the_unit_of_its_targets():
    model = regression([dense("input", signal("y"), [[90]])], signal("input"))
    y = np.random.default_rng(0).normal(size=(N, L, 1)).astype(np.float32)
    task = task_of(model, y, None, classes=None, objective="regression", metric="rmse")
    expected = reference.logits(model, task.test.x.astype(np.int64)) / 8
    judged = judge(model, task, task.test, engine=integer.engine(model, "reference"))
    np.testing.assert_array_equal(judged.outputs, expected)
    np.testing.assert_allclose(judged.metric, np.sqrt(np.mean((expected - y) ** 2)), rtol=1e-12)
    assert np.ptp(expected) > 1.0


def test_auto_is_native_where_it_was_built():
    assert integer.chosen("auto") == ("native" if integer.available("native") else "reference")
    assert integer.chosen("onnx") == "onnx"
