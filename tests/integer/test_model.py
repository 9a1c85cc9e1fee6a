"""What a model says of its raw samples."""

import numpy as np
import pytest
from tests.conformance.models import random_integer_model, raw_range
from tests.integer.small import classifier, dense, regression, signal, tokens

from qs5.backends import reference


def test_the_range_of_raw_samples():
    assert classifier().input.source == "int16" and classifier().raw_range == (-32768, 32767)
    y = dense("input", signal("y"), [[1]])
    assert regression([y], signal("input", bits=6)).raw_range == (-31, 31)
    assert regression([y], signal("input", bits=6, signed=False)).raw_range == (0, 63)


def test_tokens_are_those_of_the_embedding():
    """Five entries, though the signal holds 256 codes: all differ, and larger numbers are taken for the last."""
    model = tokens()
    low, high = model.raw_range
    assert (low, high, model.input.out.high) == (0, 4, 255)
    answers = [reference.logits(model, np.array([[[token]]])).tolist() for token in range(low, high + 2)]
    assert len({str(a) for a in answers}) == high + 1 and answers[high] == answers[high + 1]


@pytest.mark.parametrize("seed", range(8))
def test_random_models(seed: int):
    model = random_integer_model(seed)
    assert model.raw_range == raw_range(model)
