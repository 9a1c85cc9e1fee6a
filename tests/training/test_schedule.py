"""The learning rate at chosen steps."""

import jax.numpy as jnp
import numpy as np
import pytest

from qs5.training.schedule import warmup_cosine

# float32.
TOLERANCE = 1e-6

STEPS = np.arange(13)


def rates(**changes: object) -> np.ndarray:
    arguments = {"peak": 1.0, "low": 0.1, "warmup_steps": 4, "total_steps": 12, **changes}
    return np.asarray(warmup_cosine(**arguments)(STEPS))  # type: ignore[arg-type]


def assert_rates(got: np.ndarray, expected: dict[int, float]) -> None:
    np.testing.assert_allclose([got[k] for k in expected], list(expected.values()), rtol=TOLERANCE)


def test_warm_up_is_linear_then_one_cosine_falls_to_the_lowest_rate():
    got = rates()
    assert_rates(got, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0, 4: 1.0, 6: 0.868198, 8: 0.55, 10: 0.231802, 12: 0.1})
    assert (np.diff(got[4:]) < 0).all()


def test_official_quirk_counts_the_warm_up_again_and_ends_early():
    got = rates(official_quirks=True)
    assert_rates(got, {0: 0.25, 3: 1.0, 4: 0.55, 6: 0.231802})
    # The last `warmup_steps` steps of the 12 are at the lowest rate.
    np.testing.assert_allclose(got[8:12], 0.1, rtol=TOLERANCE)
    assert got[7] > 0.101


def test_without_warm_up_the_first_step_is_at_the_peak():
    assert_rates(rates(warmup_steps=0, low=0.0), {0: 1.0, 6: 0.5})


def test_warm_up_over_the_whole_run_reaches_the_peak_at_the_last_step():
    assert_rates(rates(warmup_steps=12), {0: 1 / 12, 5: 0.5, 11: 1.0})


@pytest.mark.parametrize("quirks", [False, True])
def test_beyond_the_end_the_rate_stays_at_the_lowest(quirks: bool):
    after = warmup_cosine(peak=1.0, low=0.1, warmup_steps=4, total_steps=12, official_quirks=quirks)(
        jnp.array([12, 13, 100])
    )
    np.testing.assert_allclose(after, 0.1, rtol=TOLERANCE)
