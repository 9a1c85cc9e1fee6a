"""Evaluation on a whole split against NumPy, the last partial batch and the padding included."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from tests.support import small_model, small_task

from qs5.model.arithmetic import FloatArithmetic
from qs5.tasks.task import Encoding, OneHot, Split, Task
from qs5.training.evaluate import confusion, encode, evaluate, example_loss, full_batches

# float32 losses of size 1, summed in float64.
TOLERANCE = 1e-5

ARITHMETIC = FloatArithmetic()


def test_encoding_is_affine_by_channel_and_turns_to_time_major():
    raw = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    encoding = Encoding(scale=(0.5, -1.0), offset=(1.0, 0.25))
    got = np.asarray(encode(raw, encoding))  # type: ignore[arg-type]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.swapaxes(encoding(raw), 0, 1))


def test_the_last_batch_is_filled_with_its_first_sequence():
    split = small_task().validation
    found = list(full_batches(split, 4))
    assert [batch.x.shape for batch in found] == [(4, 12, 1)] * 3
    np.testing.assert_array_equal(np.concatenate([batch.x for batch in found])[:10], split.x)
    np.testing.assert_array_equal(found[2].x[2:], split.x[[8, 8]])
    np.testing.assert_array_equal(found[2].y, split.y[[8, 9, 8, 8]])
    assert found[2].lengths is None
    assert [batch.x.shape for batch in full_batches(split, 100)] == [(10, 12, 1)]


def test_accuracy_and_loss_are_those_of_the_whole_split():
    task, model = small_task(), small_model(d_in=1, d_out=3)
    split, done = task.validation, list[tuple[int, int]]()
    got = evaluate(
        model, split, task=task, arithmetic=ARITHMETIC, batch_size=4, progress=lambda *n: done.append(n)
    )
    logits = np.asarray(eqx.filter_jit(model)(jnp.asarray(0.5 * split.x + 0.25)), np.float64)
    log_sum = np.log(np.exp(logits).sum(axis=1))
    expected = np.mean(log_sum - logits[np.arange(10), split.y])
    assert got.n == 10
    assert got.metric == np.mean(logits.argmax(axis=1) == split.y)
    np.testing.assert_allclose(got.loss, expected, rtol=TOLERANCE)
    assert done == [(4, 10), (8, 10), (10, 10)]


def regression_task() -> Any:
    rng = np.random.default_rng(1)

    def split(n: int) -> Split:
        lengths = rng.integers(1, 6, n).astype(np.int32)
        x, y = (rng.normal(size=(n, 5, d)).astype(np.float32) for d in (1, 2))
        return Split(x=x, y=y, lengths=lengths)

    splits = {name: split(5) for name in ("train", "validation", "test")}
    return small_task(**splits, classes=None, objective="regression", metric="rmse")


def test_a_regression_counts_valid_steps_only():
    task = regression_task()
    model, split = small_model(d_in=1, d_out=2, layers=1, head="regression"), task.validation
    got = evaluate(model, split, task=task, arithmetic=ARITHMETIC, batch_size=3)
    outputs = np.asarray(eqx.filter_jit(model)(0.5 * split.x + 0.25), np.float64)
    squares = [np.square(o[:n] - y[:n]) for o, y, n in zip(outputs, split.y, split.lengths, strict=True)]
    np.testing.assert_allclose(got.loss, np.mean([s.mean() for s in squares]), rtol=TOLERANCE)
    np.testing.assert_allclose(got.metric, np.sqrt(np.concatenate(squares).mean()), rtol=TOLERANCE)


def test_confusion_counts_true_classes_by_row_and_answers_by_column() -> None:
    task = small_task()
    answers = np.array([2, 0, 1, 1, 0, 2, 2, 0])
    expected = [
        [sum((task.test.y == i) & (answers == j)) for j in range(3)] for i in range(3)
    ]  # one cell at a time
    got = confusion(task, task.test, np.eye(3)[answers])
    assert got is not None and [list(row) for row in got] == expected and sum(map(sum, got)) == 8


def test_the_loss_is_that_of_the_task():
    logits, labels = jnp.zeros((2, 4)), jnp.array([0, 3])
    np.testing.assert_allclose(
        example_loss(logits, labels, None, "cross_entropy"), np.log([4.0, 4.0]), TOLERANCE
    )
    value, y = jnp.full((2, 3, 1), 2.0), jnp.zeros((2, 3, 1))
    np.testing.assert_allclose(example_loss(value, y, None, "mse"), [4.0, 4.0], TOLERANCE)
    np.testing.assert_allclose(example_loss(value, y + 6.0, None, "smape"), [100.0, 100.0], TOLERANCE)


def test_tokens_become_unit_vectors():
    encoding, raw = OneHot(width=5), np.array([[[4], [0], [2]], [[1], [1], [3]]], np.uint8)
    found = encode(raw, encoding)  # type: ignore[arg-type]
    assert found.shape == (3, 2, 5)
    np.testing.assert_array_equal(np.swapaxes(found, 0, 1), np.eye(5, dtype=np.float32)[raw[:, :, 0]])
    np.testing.assert_array_equal(encoding(raw), np.swapaxes(found, 0, 1))


def test_pairs_are_judged_document_by_document():
    """Five pairs in batches of two: the last batch is filled up, and no pair is torn or counted twice."""
    rng = np.random.default_rng(3)
    x = rng.integers(1, 6, (5, 2, 4, 1)).astype(np.uint8)
    lengths = rng.integers(1, 5, (5, 2)).astype(np.int32)
    split = Split(x=x, y=np.array([0, 1, 1, 0, 1], np.int32), lengths=lengths)
    task = Task(
        name="pairs",
        train=split,
        validation=split,
        test=split,
        encoding=OneHot(width=6),
        classes=("no", "yes"),
        units=None,
        objective="classification",
        metric="accuracy",
    )
    assert (task.length, task.d_in) == (4, 6)
    model = small_model(d_in=6, d_out=2, layers=1, head="retrieval", bidirectional=True)
    found = evaluate(model, split, task=task, arithmetic=ARITHMETIC, batch_size=2)
    logits = eqx.filter_jit(model)
    one_by_one = [
        logits(jnp.asarray(np.eye(6, dtype=np.float32)[pair[:, :, 0]]), jnp.asarray(length))[0]
        for pair, length in zip(x, lengths, strict=True)
    ]
    assert found.n == 5
    assert found.metric == np.mean(np.argmax(one_by_one, axis=-1) == split.y)
    expected = example_loss(jnp.stack(one_by_one), jnp.asarray(split.y), None, "cross_entropy")
    np.testing.assert_allclose(found.loss, np.mean(expected), rtol=TOLERANCE)
