"""`--backend c99`: emitted C, compiled here and called from Python, equals the reference; also in chunks."""

import numpy as np
import pytest
from tests.conformance.models import random_integer_model, random_sequences
from tests.emitted import compiler

from qs5.backends import reference
from qs5.errors import UserError
from qs5.integer.engine import Backend, engine
from qs5.integer.errors import IntegerModelError


@pytest.mark.parametrize("seed", range(6))
def test_logits_equal_the_reference(seed: int) -> None:
    compiler()
    model = random_integer_model(seed)
    raw = np.stack([random_sequences(model, seed=s, lengths=(13,))[0] for s in range(3)])
    expected = reference.logits(model, raw)
    np.testing.assert_array_equal(engine(model, "c99").logits(raw), expected)


def test_lengths_of_padded_sequences_count() -> None:
    compiler()
    model = random_integer_model(1, task="classification", bidirectional=False)
    raw = np.stack([random_sequences(model, seed=s, lengths=(13,))[0] for s in range(3)])
    lengths = np.array([13, 1, 7])
    got = engine(model, "c99").logits(raw, lengths)
    np.testing.assert_array_equal(got, reference.logits(model, raw, lengths))


def test_padding_of_a_bidirectional_model_is_refused() -> None:
    compiler()
    model = random_integer_model(1, task="classification", bidirectional=True, padding="fed")
    raw = random_sequences(model, seed=0, lengths=(4,))[0][None]
    with pytest.raises(IntegerModelError, match="each sequence alone"):
        engine(model, "c99").logits(raw, np.array([3]))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("seed", range(3))
def test_a_stream_goes_on_from_the_state_of_either_engine(task: str, seed: int) -> None:
    """First half in C, second in the reference, and the other way round."""
    compiler()
    model = random_integer_model(seed, task=task, bidirectional=False)
    raw = np.stack([random_sequences(model, seed=s, lengths=(11,))[0] for s in range(2)])
    expected = reference.logits(model, raw)
    orders: list[tuple[Backend, Backend]] = [("c99", "reference"), ("reference", "c99")]
    for first, second in orders:
        a, b = engine(model, first).stream(2), engine(model, second).stream(2)
        early = a.run(raw[:, :5])
        b.restore(a.state)
        late = b.run(raw[:, 5:])
        if early is None or late is None:
            np.testing.assert_array_equal(b.answer(), expected)
        else:
            np.testing.assert_array_equal(np.concatenate([early, late], axis=1), expected)


def test_no_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="expected a C compiler"):
        engine(random_integer_model(1), "c99")
