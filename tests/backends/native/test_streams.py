"""State saved, restored and reset; saturation counted; a million steps."""

import os
from collections import Counter
from typing import Any

import numpy as np
import pytest
from tests.conformance.models import random_integer_model, random_sequences

from qs5.backends import native, reference
from qs5.backends.native import NativeEngine, levels
from qs5.integer.errors import IntegerModelError
from qs5.integer.model import IntegerModel
from qs5.integer.signals import Signal
from qs5.machine import processors

MILLION = 1_000_000

every_level = pytest.mark.parametrize("level", levels())


def classifier(seed: int, **fixed: Any) -> IntegerModel:
    return random_integer_model(seed, task="classification", bidirectional=False, **fixed)


def batch_of(model: IntegerModel, seed: int, *, B: int = 2, L: int = 60) -> np.ndarray:
    return np.stack(random_sequences(model, seed=seed, lengths=(L,) * B))


@every_level
@pytest.mark.parametrize("seed", range(6))
def test_a_saved_state_goes_on_as_if_nothing_had_happened(level: str, seed: int) -> None:
    model = classifier(seed)
    raw = batch_of(model, seed)
    stream = NativeEngine(model, level=level).stream(batch=2)
    stream.run(raw[:, :37])
    saved = stream.state
    stream.run(raw[:, 37:])
    expected = stream.answer()
    stream.run(raw)  # the saved state must be a copy
    other = NativeEngine(model, level="baseline").stream(batch=2)
    other.restore(saved)
    other.run(raw[:, 37:])
    np.testing.assert_array_equal(other.answer(), expected)
    np.testing.assert_array_equal(expected, reference.logits(model, raw))


@every_level
@pytest.mark.parametrize("seed", range(6))
def test_the_state_is_that_of_the_reference(level: str, seed: int) -> None:
    model = classifier(seed)
    raw = batch_of(model, seed)
    mine, theirs = NativeEngine(model, level=level).stream(batch=2), reference.engine(model).stream(batch=2)
    for chunk in (raw[:, :1], raw[:, 1:34], raw[:, 34:]):
        mine.run(chunk)
        theirs.run(chunk)
        got, expected = mine.state, theirs.state
        assert got.keys() == expected.keys()
        for name in expected:
            assert got[name].dtype == expected[name].dtype, name
            np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def test_each_takes_the_other_ones_state() -> None:
    model = classifier(2)
    raw = batch_of(model, 2)
    mine, theirs = NativeEngine(model).stream(batch=2), reference.engine(model).stream(batch=2)
    theirs.run(raw[:, :20])
    mine.restore(theirs.state)
    mine.run(raw[:, 20:40])
    theirs.restore(mine.state)
    theirs.run(raw[:, 40:])
    np.testing.assert_array_equal(theirs.answer(), reference.logits(model, raw))


@every_level
def test_reset_forgets_everything(level: str) -> None:
    model = classifier(4)
    raw = batch_of(model, 4)
    stream = NativeEngine(model, level=level, counting=True).stream(batch=2)
    stream.run(raw[:, ::-1])
    stream.reset()
    assert not any(stream.saturated.values())
    stream.run(raw)
    np.testing.assert_array_equal(stream.answer(), reference.logits(model, raw))


def test_a_state_of_another_model_is_refused() -> None:
    model = classifier(0)
    stream = NativeEngine(model).stream(batch=2)
    stream.run(batch_of(model, 0))
    state = stream.state
    name = next(iter(state))
    with pytest.raises(IntegerModelError, match=f"expected {name} of shape"):
        stream.restore(state | {name: state[name][:, :-1]})
    with pytest.raises(IntegerModelError, match="within"):
        stream.restore(state | {name: state[name] + 2**16})
    with pytest.raises(IntegerModelError, match="shape"):
        NativeEngine(model).stream(batch=3).restore(state)


# -- saturation --------------------------------------------------------------------------------------------------


def counted_by_reference(
    model: IntegerModel, raw: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> Counter[str]:
    """Saturated codes by signal, seen where the reference clips."""
    found: Counter[str] = Counter()
    clip = reference.clip

    def counting_clip(x: np.ndarray, out: Signal) -> np.ndarray:
        found[out.name] += int(np.sum((x < out.low) | (x > out.high)))
        return clip(x, out)

    monkeypatch.setattr(reference, "clip", counting_clip)
    reference.logits(model, raw)
    return found


@every_level
@pytest.mark.parametrize("seed", range(6))
def test_saturation_is_counted(level: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_integer_model(seed)
    raw = batch_of(model, seed, B=5, L=40)
    engine = NativeEngine(model, level=level, counting=True, threads=2)
    engine.logits(raw)
    expected = counted_by_reference(model, raw, monkeypatch)
    assert sum(expected.values()) > 0
    assert engine.saturated == {name: expected[name] for name in model.signals}


def test_only_an_engine_that_counts_has_counts() -> None:
    with pytest.raises(IntegerModelError, match="counting=True"):
        _ = NativeEngine(classifier(0)).stream().saturated


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_million_steps(seed: int, rng: np.random.Generator) -> None:
    model = classifier(seed, H=6, modes=3, layers=2)
    part = random_sequences(model, seed=seed, lengths=(MILLION // 10,))[0]
    raw = np.concatenate([part[rng.permutation(len(part))] for _ in range(10)])[None]
    whole, chunked = NativeEngine(model).stream(), NativeEngine(model, counting=True).stream()
    counted_whole, at = NativeEngine(model, counting=True).stream(), 0
    whole.run(raw)
    counted_whole.run(raw)
    while at < MILLION:
        n = int(rng.integers(1, 20_000))
        chunked.run(raw[:, at : at + n])
        at += n
    assert int(whole.state["pool.steps"]) == MILLION
    for name, expected in whole.state.items():
        np.testing.assert_array_equal(chunked.state[name], expected, err_msg=name)
    np.testing.assert_array_equal(chunked.answer(), whole.answer())
    assert chunked.saturated == counted_whole.saturated
    assert sum(chunked.saturated.values()) > 0
    # The reference agrees on the last steps: from the state of 1,000 steps before the end.
    before, slow = NativeEngine(model, level="baseline").stream(), reference.engine(model).stream()
    before.run(raw[:, :-1000])
    slow.restore(before.state)
    slow.run(raw[:, -1000:])
    np.testing.assert_array_equal(slow.answer(), whole.answer())


def test_an_engine_has_a_thread_for_each_processor_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert processors() == 3
    assert native.engine(random_integer_model(0)).threads == 3
