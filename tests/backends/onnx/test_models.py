"""Exported models in onnxruntime give the codes of the reference: to the bit, in whole batches and in chunks."""

from functools import cache

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from tests.conformance.models import random_integer_model, random_sequences
from tests.grades import graded

from qs5.backends import reference
from qs5.backends.onnx import OnnxRunner, logits, to_onnx
from qs5.integer import ops as o
from qs5.integer.model import IntegerModel

QUICK = 12
SEEDS = graded(list(range(250)), quick=QUICK, slow=30)
LENGTHS = (19, 1, 2, 7)


@cache
def runner_of(seed: int) -> tuple[IntegerModel, OnnxRunner]:
    model = random_integer_model(seed)
    return model, OnnxRunner.of(model, threads=1)


def padded(model: IntegerModel, seed: int, lengths: tuple[int, ...] = LENGTHS) -> np.ndarray:
    """A batch whose padding is as noisy as the sequences: what reads it wrongly shows."""
    return np.stack(random_sequences(model, seed=seed, lengths=(max(lengths),) * len(lengths)))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_models_equal_the_reference(seed: int) -> None:
    model, runner = runner_of(seed)
    raw, lengths = padded(model, seed), np.asarray(LENGTHS)
    expected = reference.logits(model, raw, lengths)
    np.testing.assert_array_equal(runner.logits(raw, lengths), expected)
    if model.task == "classification":
        np.testing.assert_array_equal(runner.labels(raw, lengths), np.argmax(expected, axis=-1))
        np.testing.assert_array_equal(runner.logits(raw), reference.logits(model, raw))


@pytest.mark.parametrize("seed", SEEDS)
def test_any_split_into_chunks_gives_the_whole(seed: int) -> None:
    model, runner = runner_of(seed)
    if model.bidirectional:
        return
    raw, lengths = padded(model, seed), np.asarray(LENGTHS)
    stream, parts = runner.stream(batch=len(raw)), []
    for start, stop in ((0, 1), (1, 2), (2, 9), (9, 19)):
        # Sequences end in different chunks; then they have no steps.
        here = np.clip(lengths - start, 0, stop - start)
        parts.append(stream.run(raw[:, start:stop], here if model.final_ops else None))
    got = parts[-1] if model.final_ops else np.concatenate(parts, axis=1)
    np.testing.assert_array_equal(got, reference.logits(model, raw, lengths))


def test_the_quick_seeds_have_every_op_and_form() -> None:
    models = [random_integer_model(seed) for seed in range(QUICK)]
    ops = [op for model in models for op in model.ops]
    assert {op.kind for op in ops} == set(o.KINDS)
    recurrences = [op for op in ops if isinstance(op, o.Recurrence)]
    assert {(op.M == 1, op.reverse) for op in recurrences} == {(a, b) for a in (0, 1) for b in (0, 1)}
    assert {model.input.source for model in models} == {"uint8", "int16", "codes", "token"}
    assert {model.task for model in models} == {"classification", "regression"}
    assert {bool(op.biases) for op in ops if isinstance(op, o.Dense)} == {True, False}
    shifts = np.concatenate([op.shift for op in ops if isinstance(op, o.Shift)])
    assert {-1, 0, 1} <= set(np.sign(shifts).tolist())


@pytest.mark.parametrize(("H", "modes", "bidirectional"), [(97, 128, False), (128, 96, True)])
def test_a_large_model_equals_the_reference(H: int, modes: int, bidirectional: bool) -> None:
    model = random_integer_model(3, H=H, modes=modes, layers=2, bidirectional=bidirectional)
    raw, lengths = padded(model, 3, (200, 131, 1)), np.asarray((200, 131, 1))
    np.testing.assert_array_equal(logits(model, raw, lengths), reference.logits(model, raw, lengths))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_steps_with_a_state_saved_and_restored(task: str) -> None:
    model = random_integer_model(5, task=task, bidirectional=False)
    raw = padded(model, 5, (12, 12))
    runner = OnnxRunner.of(model)
    expected = reference.logits(model, raw)
    stream = runner.stream(batch=2)
    for k in range(6):
        stream.step(raw[:, k])
    kept = stream.state
    ends = []
    for _ in range(2):
        later = runner.stream(batch=2)
        later.state = kept
        ends.append([later.step(raw[:, k]) for k in range(6, 12)])
    np.testing.assert_array_equal(ends[0], ends[1])
    np.testing.assert_array_equal(ends[0][-1], expected[:, -1] if task == "regression" else expected)
    stream.reset()
    whole = stream.run(raw)
    np.testing.assert_array_equal(whole, expected)


def test_the_carried_state_is_that_of_the_reference() -> None:
    model = random_integer_model(2, task="classification", bidirectional=False)
    raw = padded(model, 2, (9,))
    stream, carry = OnnxRunner.of(model).stream(), reference.Carry()
    stream.run(raw)
    reference.run_steps(model, reference.quantize_input(raw, model.input), carry)
    assert set(carry.states) == {name for name in stream.state if not name.startswith("pool.")}
    for name, state in carry.states.items():
        np.testing.assert_array_equal(stream.state[name], state)
    pool = {"pool.total": carry.total, "pool.last": carry.last, "pool.steps": [carry.steps]}
    for name in {"pool.total", "pool.last", "pool.steps"} & set(stream.state):
        np.testing.assert_array_equal(stream.state[name], pool[name])


def test_equal_logits_give_the_first_label() -> None:
    model = random_integer_model(1, task="classification")
    runner = OnnxRunner.of(model)
    raw = np.stack(random_sequences(model, seed=1, lengths=(3,) * 50))
    expected = reference.logits(model, raw)
    np.testing.assert_array_equal(runner.labels(raw), np.argmax(expected, axis=-1))


class GatherElements(OpRun):
    """Of a list: ONNX's evaluator has one that fails beyond 64 entries."""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
        assert (data.ndim, axis) == (1, 0)
        return (data[indices],)


@pytest.mark.parametrize("seed", range(6))
def test_onnx_own_evaluator_agrees(seed: int) -> None:
    """The graph means the same to another implementation of ONNX, so it rests on nothing of onnxruntime's own."""
    # No reverse recurrence: the evaluator's Scan cannot run backwards.
    model = random_integer_model(seed, layers=1, H=7, modes=3, bidirectional=False)
    raw, lengths = padded(model, seed, (6, 1)), np.asarray((6, 1))
    proto = to_onnx(model)
    evaluator = ReferenceEvaluator(proto, new_ops=[GatherElements])
    with np.errstate(over="ignore"):  # unsigned wrap-around is meant
        outputs = evaluator.run(None, _feed(proto, raw, lengths))
    got = dict(zip((value.name for value in proto.graph.output), outputs, strict=True))
    np.testing.assert_array_equal(got["logits"], reference.logits(model, raw, lengths))


def _feed(proto: onnx.ModelProto, raw: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """What the graph reads, in its types; what is carried starts at zero."""
    feed = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        zeros = np.zeros([len(raw), *(d.dim_value for d in tensor.shape.dim[1:])], int)
        array = {"raw": raw, "lengths": lengths}.get(value.name, zeros)
        feed[value.name] = np.clip(array, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    return feed
