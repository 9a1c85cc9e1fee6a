"""Every engine equals the reference on random integer models, and on random networks that were lowered."""

import numpy as np
import pytest
from tests.conformance.engines import assert_engines_agree
from tests.conformance.models import random_integer_model, random_sequences
from tests.grades import graded

from qs5.backends import reference


@pytest.mark.parametrize("seed", graded(list(range(150)), quick=12, slow=20))
def test_engines_equal_the_reference_on_random_integer_models(seed: int) -> None:
    model = random_integer_model(seed)
    raw = np.stack([random_sequences(model, seed=s, lengths=(21,))[0] for s in range(3)])
    assert_engines_agree(model, raw, None, reference.logits(model, raw))
    if model.final_ops:
        lengths = np.array([21, 1, 8])
        assert_engines_agree(model, raw, lengths, reference.logits(model, raw, lengths))
