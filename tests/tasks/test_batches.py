import numpy as np
import pytest

from qs5.tasks import Split
from qs5.tasks.batches import batches, permutation

X = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 1), np.uint8)
SPLIT = Split(x=X, y=np.arange(10, dtype=np.int32), lengths=np.arange(10, dtype=np.int32) % 3 + 1)


def test_permutation_is_a_permutation():
    assert sorted(permutation(100, seed=1, epoch=2)) == list(range(100))


def test_permutation_is_a_function_of_seed_and_epoch():
    first = permutation(100, seed=1, epoch=2)
    np.testing.assert_array_equal(permutation(100, seed=1, epoch=2), first)
    for seed, epoch in ((1, 3), (2, 2), (2, 1)):
        assert (permutation(100, seed=seed, epoch=epoch) != first).any()


def test_evaluation_sees_every_sequence_once_in_order():
    parts = list(batches(SPLIT, order=None, batch_size=4, drop_last=False))
    assert [len(part.x) for part in parts] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([part.y for part in parts]), SPLIT.y)


def test_training_drops_the_partial_batch_only():
    assert [len(x) for x, _, _ in batches(SPLIT, order=None, batch_size=4, drop_last=True)] == [4, 4]
    assert [len(x) for x, _, _ in batches(SPLIT, order=None, batch_size=5, drop_last=True)] == [5, 5]
    assert list(batches(SPLIT, order=None, batch_size=11, drop_last=True)) == []


def test_batches_follow_the_order_and_keep_rows_together():
    order = permutation(10, seed=0, epoch=0)
    for start, (x, y, lengths) in zip(
        (0, 4, 8), batches(SPLIT, order=order, batch_size=4, drop_last=False), strict=True
    ):
        np.testing.assert_array_equal(y, order[start : start + 4])
        np.testing.assert_array_equal(x[:, 0, 0], y)
        np.testing.assert_array_equal(np.asarray(lengths), y % 3 + 1)


def test_an_order_may_be_a_part():
    (batch,) = batches(SPLIT, order=np.array([7, 1]), batch_size=4, drop_last=False)
    np.testing.assert_array_equal(batch.y, [7, 1])


def test_equal_lengths_stay_none():
    split = Split(x=X, y=SPLIT.y, lengths=None)
    assert next(batches(split, order=None, batch_size=4, drop_last=False)).lengths is None


def test_a_batch_may_hold_one_sequence():
    assert [len(x) for x, _, _ in batches(SPLIT, order=None, batch_size=1, drop_last=True)] == [1] * 10


def test_batch_size_is_checked_at_the_call():
    with pytest.raises(ValueError, match="expected batch_size >= 1, got 0"):
        batches(SPLIT, order=None, batch_size=0, drop_last=False)


def test_pairs_are_stacked_first_documents_first():
    x = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    lengths = np.array([[1, 2], [2, 1], [1, 1]], np.int32)
    split = Split(x=x, y=np.arange(3, dtype=np.int32), lengths=lengths)
    (batch,) = batches(split, order=np.array([2, 0]), batch_size=2, drop_last=True)
    assert batch.x[:, :, 0].tolist() == [[8, 9], [0, 1], [10, 11], [2, 3]]
    assert batch.y.tolist() == [2, 0]
    assert batch.lengths is not None and batch.lengths.tolist() == [1, 1, 1, 2]
