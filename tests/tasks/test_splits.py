import numpy as np
import pytest

from qs5.tasks.splits import stratified, two_way

GROUPS = np.repeat(["a", "b", "c"], [100, 40, 3])


def test_every_index_is_in_exactly_one_part():
    parts = stratified(GROUPS, seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(GROUPS)))


def test_groups_keep_their_proportions():
    counts = [
        dict(zip(*np.unique(GROUPS[part], return_counts=True), strict=True))
        for part in stratified(GROUPS, seed=3)
    ]
    assert counts == [{"a": 70, "b": 28, "c": 3}, {"a": 15, "b": 6}, {"a": 15, "b": 6}]


def test_parts_are_not_sorted_by_group():
    train = stratified(GROUPS, seed=3)[0]
    assert len(np.unique(GROUPS[train][:20])) > 1
    assert (np.diff(train) < 0).any()


def test_the_split_is_a_function_of_the_seed():
    for again, part in zip(stratified(GROUPS, seed=3), stratified(GROUPS, seed=3), strict=True):
        np.testing.assert_array_equal(again, part)
    assert (stratified(GROUPS, seed=4)[1] != stratified(GROUPS, seed=3)[1]).any()


def test_streams_are_pinned():
    """A change here changes every recorded identity of a task."""
    assert stratified(np.zeros(8), seed=0, fraction=0.25)[2].tolist() == [4, 5]
    assert two_way(10, seed=42, fraction=0.2)[1].tolist() == [3, 6]


@pytest.mark.parametrize("n", [10, 11])
def test_two_way_covers_everything_once(n: int):
    kept, held_out = two_way(n, seed=1, fraction=0.2)
    assert len(held_out) == 2
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(n))
