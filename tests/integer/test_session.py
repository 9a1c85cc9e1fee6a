"""Streaming: any cuts give the same bits, the state can be taken elsewhere, and misuse is refused in one clear line."""

import importlib
import itertools
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tests.conformance.models import random_integer_model, random_sequences
from tests.integer.small import classifier, dense, recurrence, regression, signal, tokens

from qs5.backends import reference
from qs5.integer import IntegerModelError, Session, available, engine
from qs5.integer.model import IntegerModel

L = 19


def forward_model(seed: int, **choices: Any) -> IntegerModel:
    return random_integer_model(seed, bidirectional=False, layers=1, **choices)


def raw_of(model: IntegerModel, seed: int, length: int = L) -> np.ndarray:
    (raw,) = random_sequences(model, seed=seed, lengths=(length,))
    return raw


def session_of(model: IntegerModel) -> Session:
    return model.stream(backend="reference")


@settings(max_examples=60)
@given(st.integers(0, 15), st.sets(st.integers(1, L - 1)), st.sampled_from(["classification", "regression"]))
def test_any_cuts_give_the_answer_of_the_whole(seed: int, cuts: set[int], task: str) -> None:
    model = forward_model(seed, task=task)
    raw = raw_of(model, seed)
    whole = reference.logits(model, raw[None])[0]
    session = session_of(model)
    outs = [session.run(raw[a:b]) for a, b in itertools.pairwise([0, *sorted(cuts), L])]
    assert session.steps == L
    if task == "regression":
        np.testing.assert_array_equal(np.concatenate([o for o in outs if o is not None]), whole)
    else:
        assert all(o is None for o in outs)
        np.testing.assert_array_equal(session.logits, whole)
        assert session.prediction == int(np.argmax(whole))


@pytest.mark.parametrize("seed", range(6))
def test_the_answer_so_far_is_that_of_the_steps_so_far(seed: int) -> None:
    model = forward_model(seed, task="classification")
    raw, session = raw_of(model, seed, 6), session_of(model)
    for k in range(6):
        assert session.step(raw[k]) is None
        np.testing.assert_array_equal(session.logits, reference.logits(model, raw[None, : k + 1])[0])


@pytest.mark.parametrize("seed", range(6))
def test_a_regression_answers_every_step(seed: int) -> None:
    model = forward_model(seed, task="regression")
    raw, session = raw_of(model, seed, 6), session_of(model)
    whole = reference.logits(model, raw[None])[0]
    for k in range(6):
        out = session.step(raw[k])
        assert out is not None
        np.testing.assert_array_equal(out, whole[k])
    for ask in (lambda: session.logits, lambda: session.prediction):
        with pytest.raises(
            IntegerModelError, match="got a regression, which has no one answer; use what step and"
        ):
            ask()


@settings(max_examples=30)
@given(st.integers(0, 15), st.integers(1, L - 1), st.sampled_from(["classification", "regression"]))
def test_the_state_goes_on_in_another_session(seed: int, cut: int, task: str) -> None:
    model = forward_model(seed, task=task)
    raw, first = raw_of(model, seed), session_of(model)
    first.run(raw[:cut])
    saved = {name: np.array(value) for name, value in first.state.items()}  # as if through a file
    second = session_of(model)
    second.run(raw[::-1])  # what was before is forgotten
    second.state = saved
    assert second.steps == cut
    a, b = first.run(raw[cut:]), second.run(raw[cut:])
    if a is not None and b is not None:
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(b, reference.logits(model, raw[None])[0, cut:])
    else:
        np.testing.assert_array_equal(second.logits, reference.logits(model, raw[None])[0])
    assert first.steps == second.steps == L


def test_a_saved_state_is_a_copy() -> None:
    model = forward_model(1, task="classification")
    raw, session = raw_of(model, 1), session_of(model)
    session.run(raw[:5])
    saved = session.state
    kept = {name: value.copy() for name, value in saved.items()}
    session.run(raw[5:])
    for name, value in saved.items():
        np.testing.assert_array_equal(value, kept[name])
    other = session_of(model)
    other.state = saved
    for value in saved.values():
        value[...] = 1
    other.run(raw[5:])
    np.testing.assert_array_equal(other.logits, session.logits)


def test_a_saved_state_holds_what_the_protocol_says() -> None:
    session = session_of(classifier())
    session.run(np.full((3, 2), 1000))
    state = session.state
    assert {k: (v.shape, v.dtype.name) for k, v in state.items()} == {
        "state": ((1, 4), "int32"),
        "pool.total": ((1, 2), "int64"),
        "pool.last": ((1, 2), "int32"),
        "pool.steps": ((), "int64"),
        "steps": ((), "int64"),
    }
    assert int(state["steps"]) == int(state["pool.steps"]) == 3


def test_the_state_before_the_first_step() -> None:
    model = forward_model(2, task="classification")
    session, raw = session_of(model), raw_of(model, 2)
    empty = session.state
    session.run(raw)
    expected = session.logits
    session.state = empty
    assert session.steps == 0
    with pytest.raises(ValueError, match="expected at least one step before the answer"):
        _ = session.logits
    session.run(raw)
    np.testing.assert_array_equal(session.logits, expected)


@pytest.mark.parametrize("seed", range(4))
def test_reset_is_the_beginning(seed: int) -> None:
    model = forward_model(seed, task="classification")
    raw, session = raw_of(model, seed), session_of(model)
    session.run(raw)
    expected = session.logits
    session.run(raw[:3])
    session.reset()
    assert session.steps == 0
    with pytest.raises(ValueError, match="expected at least one step"):
        _ = session.prediction
    session.run(raw)
    np.testing.assert_array_equal(session.logits, expected)


def test_no_answer_before_the_first_step() -> None:
    session = session_of(classifier())
    for ask in (lambda: session.logits, lambda: session.prediction):
        with pytest.raises(ValueError, match="expected at least one step before the answer"):
            ask()


def test_two_sessions_do_not_know_of_each_other() -> None:
    model = forward_model(3, task="classification")
    a, b, raw = session_of(model), session_of(model), raw_of(model, 3)
    for k in range(L):
        a.step(raw[k])
        b.step(raw[L - 1 - k])
    np.testing.assert_array_equal(a.logits, reference.logits(model, raw[None])[0])
    np.testing.assert_array_equal(b.logits, reference.logits(model, raw[None, ::-1])[0])


def test_tokens_are_one_number_a_step() -> None:
    """The table's rows are (-5, -4), (-3, -2), .. (3, 4), and the decoder passes them on; too large is the last."""
    session = session_of(tokens())
    for token, row in [
        (0, (-5, -4)),
        (4, (3, 4)),
        (2, (-1, 0)),
        (5, (3, 4)),
        (10**6, (3, 4)),
        (-3, (-5, -4)),
    ]:
        session.step(token)
        assert session.logits.tolist() == list(row)
    session.run(np.array([[4], [1]], np.uint8))
    assert session.logits.tolist() == [-3, -2]
    assert session.prediction == 1


def test_of_equal_logits_the_first_counts() -> None:
    model = tokens()
    decoder = dense("pool", signal("logits", 2, 16), [[1, 0], [1, 0]], shift=np.array([14, 14], np.uint8))
    session = session_of(
        IntegerModel(task=model.task, input=model.input, ops=(*model.ops[:2], decoder), max_length=5)
    )
    session.step(3)
    assert len(set(session.logits.tolist())) == 1
    assert session.prediction == 0


def refused(session: Session, chunk: Any, words: str, *, step: bool = False) -> None:
    """One line that says what was expected, and nothing has happened."""
    before, state = session.steps, session.state
    with pytest.raises(IntegerModelError) as error:
        (session.step if step else session.run)(chunk)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert session.steps == before
    for name, value in session.state.items():
        np.testing.assert_array_equal(value, state[name])


def test_samples_that_do_not_fit_are_refused() -> None:
    session = session_of(classifier())  # int16, two channels
    session.run(np.full((2, 2), 7))
    want = "expected raw samples (B, L, 2) of whole numbers (int16)"
    refused(session, np.zeros((3, 1), np.int64), f"{want}, got (1, 3, 1) int64")
    refused(session, np.zeros((3, 3), np.int64), f"{want}, got (1, 3, 3) int64")
    refused(session, np.zeros(2, np.int64), f"{want}, got (1, 2) int64")
    refused(session, np.zeros((1, 3, 2), np.int64), f"{want}, got (1, 1, 3, 2) int64")
    refused(session, np.zeros((3, 2)), f"{want}, got (1, 3, 2) float64")
    refused(session, np.zeros((3, 2), bool), f"{want}, got (1, 3, 2) bool")
    refused(session, [[None, 1]], f"{want}, got (1, 1, 2) object")
    refused(session, [["1", "2"]], want)
    refused(session, 5, want, step=True)
    refused(session, np.zeros((1, 2), np.int64), want, step=True)
    refused(session, [0.5, 1.5], want, step=True)
    refused(session, [2**15, 0], "expected raw samples of -32768 to 32767 (int16), got 0 to 32768", step=True)
    refused(
        session,
        [0, -(2**15) - 1],
        "expected raw samples of -32768 to 32767 (int16), got -32769 to 0",
        step=True,
    )
    refused(session, np.zeros((0, 2), np.int64), "expected 1 to 1000 steps, got 0")
    refused(session, np.zeros((1001, 2), np.int64), "expected 1 to 1000 steps, got 1001")
    session.step(np.array([2**15 - 1, -(2**15)]))
    assert session.steps == 3


@pytest.mark.parametrize("backend", [b for b in ("reference", "native", "c99", "onnx") if available(b)])
def test_a_sequence_of_chunks_is_no_longer_than_a_sequence(backend: str) -> None:
    """max_length is what sums over the steps are proved for."""
    session = classifier().stream(backend)
    chunk = np.full((500, 2), 77)
    session.run(chunk)
    session.run(chunk[:499])
    refused(
        session, chunk[:2], "expected at most 1000 steps in a sequence, got 999 and 2 more; reset, or lower"
    )
    session.step(chunk[0])
    answer = session.logits
    refused(session, chunk[0], "expected at most 1000 steps in a sequence, got 1000 and 1 more", step=True)
    np.testing.assert_array_equal(session.logits, answer)
    session.reset()
    session.run(chunk)


def test_a_regression_may_run_for_ever() -> None:
    model = regression([dense("input", signal("y"), [[1]], shift=np.array([14], np.uint8))], signal("input"))
    session = session_of(model)
    for _ in range(3):
        session.run(np.full((model.max_length, 1), 5))
    assert session.steps == 3 * model.max_length


def test_codes_of_any_size_saturate() -> None:
    model = regression([dense("input", signal("y"), [[1]], shift=np.array([14], np.uint8))], signal("input"))
    session = session_of(model)
    out = session.run(np.array([[2**31 - 1], [-(2**31)], [128], [-3]]))
    assert out is not None
    assert out[:, 0].tolist() == [127, -127, 127, -3]
    refused(session, [2**31], "expected raw samples of -2147483648 to 2147483647 (codes)", step=True)


def test_a_bidirectional_model_is_refused_before_the_first_step() -> None:
    model = regression([recurrence("input", signal("y", 2), reverse=True)], signal("input", 2))
    assert model.bidirectional
    words = "expected a model that runs forward in time, got a bidirectional one"
    with pytest.raises(IntegerModelError, match=words):
        model.stream()
    with pytest.raises(IntegerModelError, match=words):
        Session(random_integer_model(0, bidirectional=True), "reference")
    with pytest.raises(IntegerModelError, match=words):
        engine(model, "reference").stream()
    assert engine(model, "reference").logits(np.ones((1, 4, 2), np.int64)).shape == (1, 4, 2)


def test_engines_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    raw = np.random.default_rng(0).integers(-(2**15), 2**15, (3, 9, 2))
    expected = reference.logits(model, raw)
    for name in ("auto", "reference"):
        np.testing.assert_array_equal(engine(model, name).logits(raw), expected)
    assert available("reference")
    # By its name: `qs5.integer.engine` is also the function.
    module = importlib.import_module("qs5.integer.engine")
    monkeypatch.setattr(module, "available", lambda name: name == "reference")
    assert isinstance(engine(model), reference.ReferenceEngine)
    for name in ("native", "c99", "onnx"):
        monkeypatch.setitem(sys.modules, f"qs5.backends.{name}", None)  # importing it is an ImportError
        with pytest.raises(IntegerModelError, match=f"expected a backend that runs here, got {name} "):
            engine(model, name)
    unknown: Any = "fpga"
    with pytest.raises(
        IntegerModelError, match="expected a backend of native, reference, c99, onnx or auto, got 'fpga'"
    ):
        engine(model, unknown)
    with pytest.raises(IntegerModelError, match="got 'fpga'"):
        model.stream(backend="fpga")


def test_lengths_of_a_padded_batch() -> None:
    model = classifier()
    raw = np.random.default_rng(1).integers(-(2**15), 2**15, (3, 9, 2))
    run = engine(model, "reference").logits
    lengths = np.array([9, 1, 4])
    got = run(raw, lengths)
    for i, n in enumerate(lengths):
        np.testing.assert_array_equal(got[i], run(raw[i : i + 1, :n])[0])
    for wrong in ([9, 1], [0, 1, 2], [10, 1, 2]):
        with pytest.raises(IntegerModelError, match="expected 3 lengths of 1 to 9"):
            run(raw, np.array(wrong))


@pytest.mark.parametrize("other", [b for b in ("native", "onnx") if available(b)])
@pytest.mark.parametrize("seed", range(6))
def test_a_state_moves_between_engines(seed: int, other: str) -> None:
    model = forward_model(seed, task="classification")
    raw = raw_of(model, seed)
    whole = reference.logits(model, raw[None])[0]
    for first, second in (("reference", other), (other, "reference")):
        before, after = model.stream(backend=first), model.stream(backend=second)
        before.run(raw[:7])
        after.state = before.state
        after.run(raw[7:])
        np.testing.assert_array_equal(after.logits, whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {}, "expected the state of a session of this model"),
        (lambda s: s | {"else": np.zeros(1)}, "expected the state of a session of this model"),
        (lambda s: {k: v[:, 1:] if v.ndim == 2 else v for k, v in s.items()}, "of shape (1, "),
        (lambda s: {k: v + 2**20 if v.ndim == 2 else v for k, v in s.items()}, "within"),
        (lambda s: s | {"steps": np.asarray(1001)}, "expected at most 1000 steps in a sequence"),
        (lambda s: s | {"steps": np.asarray(-1)}, "expected steps to be a whole number of 0 or more, got -1"),
        (lambda s: s | {"steps": np.asarray(3.0)}, "expected steps to be a whole number"),
        (lambda s: s | {"pool.steps": np.asarray(4)}, "expected at most 3 pool.steps, got 4"),
        (
            lambda s: s | {"pool.last": np.full((1, 2), 2**15)},
            "pool.last of shape (1, 2) within -32767 to 32767",
        ),
        (lambda s: s | {"pool.total": np.full((1, 2), 98302)}, "pool.total of shape (1, 2) within -98301 to"),
        (lambda s: s | {"pool.total": np.zeros((1, 3))}, "pool.total of shape (1, 2)"),
    ],
)
def test_a_state_of_another_model_is_refused(change: Any, words: str) -> None:
    model = classifier()
    session = session_of(model)
    session.run(raw_of(model, 0, 3))
    before = session.state
    with pytest.raises(IntegerModelError) as error:
        session.state = change(session.state)
    assert words in str(error.value)
    for name, value in session.state.items():
        np.testing.assert_array_equal(value, before[name])
