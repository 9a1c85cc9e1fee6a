import numpy as np
import pytest

from qs5 import tasks
from qs5.tasks import DataError, Encoding, Split, Task
from qs5.tasks.metrics import accuracy, rmse, score, smape, smape_running

PRED = np.array([[[1.0], [2.0]], [[5.0], [9.0]]], np.float32)
TARGET = np.array([[[1.0], [0.0]], [[2.0], [0.0]]], np.float32)


def test_accuracy_is_the_fraction_of_first_largest():
    logits = np.array([[1, 5], [7, 7], [7, 7], [0, -1]])
    assert accuracy(logits, np.array([1, 0, 1, 1])) == 0.5


def test_rmse_weighs_every_valid_step_the_same():
    assert rmse(PRED, TARGET, None) == pytest.approx(np.sqrt((0 + 4 + 9 + 81) / 4))
    assert rmse(PRED, TARGET, np.array([2, 1], np.int32)) == pytest.approx(np.sqrt((0 + 4 + 9) / 3))


def test_rmse_ignores_the_padding():
    wild = PRED.copy()
    wild[1, 1] = np.nan
    assert rmse(wild, TARGET, np.array([2, 1], np.int32)) == rmse(PRED, TARGET, np.array([2, 1], np.int32))


def regression() -> Task:
    split = Split(x=PRED, y=TARGET, lengths=np.array([2, 1], np.int32))
    return Task(
        name="toy",
        train=split,
        validation=split,
        test=split,
        encoding=Encoding(scale=(1.0,), offset=(0.0,)),
        classes=None,
        units=None,
        objective="regression",
        metric="rmse",
    )


def test_score_is_the_metric_of_the_task():
    digits = tasks.load("digits")
    one_hot = np.eye(10)[digits.test.y]
    assert score(digits, digits.test, one_hot) == 1.0
    assert score(digits, digits.test, -one_hot) < 0.2
    task = regression()
    assert score(task, task.test, PRED) == rmse(PRED, TARGET, task.test.lengths)


def test_a_part_of_a_split_is_not_scored():
    digits = tasks.load("digits")
    with pytest.raises(DataError, match=r"digits: expected outputs of shape \(269, 10\) .*got \(256, 10\)"):
        score(digits, digits.test, np.zeros((256, 10)))
    task = regression()
    with pytest.raises(DataError, match=r"expected outputs of shape \(2, 2, 1\)"):
        score(task, task.test, PRED[:, :1])


def test_smape_as_coded_is_a_plain_mean():
    """|y - p| / (|y| + |p|) is 0, 1, 3/7 and 1."""
    assert smape(PRED, TARGET, None) == pytest.approx(200 * (0 + 1 + 3 / 7 + 1) / 4)
    assert smape(PRED, TARGET, np.array([2, 1], np.int32)) == pytest.approx(200 * (0 + 1 + 3 / 7) / 3)
    assert smape(np.zeros((1, 2, 1)), np.zeros((1, 2, 1)), None) == 0.0


def test_smape_as_printed_is_a_running_mean():
    """epsilon(1), epsilon(2) of the first sequence are 0 and 100, of the second 600/7 and 1000/7."""
    assert smape_running(PRED, TARGET, None) == pytest.approx((0 + 100 + 600 / 7 + 1000 / 7) / 4)
    only = smape_running(PRED, TARGET, np.array([2, 1], np.int32))
    assert only == pytest.approx((0 + 100 + 600 / 7) / 3)
