"""The delay integrator against a plain loop, scipy's adaptive solver, and dysts where it is installed."""

import collections
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from qs5 import tasks
from qs5.tasks import DataError, mackey_glass as mg
from qs5.tasks.task import PAPER

# Doubles; two orders of the same sums differ by rounding, which the chaos of long delays amplifies.
SAME_SCHEME = 1e-9


def plain_loop(history: np.ndarray, steps: int, dt: float) -> list[float]:
    """x at steps 0..steps by a queue of past values, one step at a time, as dysts' generator of 2023 did it."""
    queue, x = collections.deque(history.tolist()), float(history[-1])
    found = [x]
    for _ in range(steps):
        delayed = queue.popleft()
        x = x + (2.0 * (delayed / (1 + delayed**9.65)) - 1.0 * x) * dt
        queue.append(x)
        found.append(x)
    return found


def by_scipy(level: float, tau: float, times: np.ndarray) -> np.ndarray:
    """The method of steps with an adaptive Runge-Kutta method of order 8; constant history."""
    pieces: list[Any] = [lambda t: np.full(np.shape(t), level)]
    x, found = level, np.zeros(len(times))
    for k in range(int(times[-1] / tau) + 1):

        def slope(t: float, q: np.ndarray, past: Any = pieces[-1]) -> np.ndarray:
            delayed = past(t - tau)
            return 2.0 * delayed / (1.0 + delayed**9.65) - q

        solved = solve_ivp(
            slope, (k * tau, (k + 1) * tau), [x], method="DOP853", rtol=1e-11, atol=1e-12, dense_output=True
        )
        inside = (times >= k * tau) & (times <= (k + 1) * tau)
        found[inside] = solved.sol(times[inside])[0]
        pieces.append(lambda t, sol=solved.sol: sol(t)[0])
        x = float(solved.y[0, -1])
    return found


def test_blocks_are_the_plain_loop(rng: np.random.Generator):
    history = rng.uniform(0.2, 1.2, (101, 3))
    at = np.array([0, 1, 5, 99, 100, 101, 250, 999, 1000])
    found = mg.integrate(history, at=at, dt=0.01)
    for n in range(3):
        expected = np.asarray(plain_loop(history[:, n], 1000, 0.01))[at]
        np.testing.assert_allclose(found[:, n], expected, rtol=SAME_SCHEME)


def test_the_integral_converges_to_that_of_another_method():
    """Euler's error is proportional to the step; the differences to scipy's solution show just that."""
    tau, level, times = 2.0, 0.7, np.linspace(0.0, 12.0, 61)
    exact = by_scipy(level, tau, times)
    assert exact.max() - exact.min() > 0.5
    errors = []
    for refinement in (1, 2, 4):
        mem = 1600 * refinement
        dt = tau / mem
        at = np.round(times / dt).astype(int)
        found = mg.integrate(np.full((mem + 1, 1), level), at=at, dt=dt)[:, 0]
        errors.append(np.abs(found - exact).max())
    assert errors[0] < 0.01
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2.0, rtol=0.05)


def dysts(module: str) -> Any:
    """A module of dysts, or a skip. It warns that Numba is missing when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(module, reason="dysts is not installed (pip install 'qs5[dysts]')")


def test_constants_and_equation_are_those_of_dysts():
    system = dysts("dysts.flows").MackeyGlass()
    assert (system.dt, system.period) == (mg.DT, mg.PERIOD)
    for x, delayed in ((0.3, 0.9), (1.2, 0.4)):
        mine = mg.integrate(np.array([[delayed], [x]]), at=np.array([1]), dt=0.01)[0, 0]
        theirs = x + 0.01 * system._rhs(x, delayed, 0.0, mg.BETA, mg.GAMMA, mg.POWER, 1.0)
        assert mine == pytest.approx(theirs, rel=1e-12)


def test_the_integral_is_what_that_of_dysts_converges_to():
    """The solver of dysts continues its solution linearly within a step: its error falls with the distance of times."""
    system, tau, errors = dysts("dysts.flows").MackeyGlass(), 2.0, []

    def slope(past: Any, t: float) -> Any:
        return system._rhs(past(t), past(t - tau), t, mg.BETA, mg.GAMMA, mg.POWER, tau)

    for n in (801, 3201):
        times = np.linspace(0.0, 8.0, n)
        theirs = np.asarray(dysts("dysts.utils").ddeint(slope, lambda _: 0.7, times)).reshape(-1)
        mem = 8000
        at = np.round(times * mem / tau).astype(int)
        mine = mg.integrate(np.full((mem + 1, 1), 0.7), at=at, dt=tau / mem)[:, 0]
        errors.append(float(np.abs(mine - theirs).max()))
    assert errors[0] < 0.015 and errors[1] < errors[0] / 2  # of values from 0.2 to 1.4


def test_channels_are_delays_of_one_series():
    """With the layout of dysts: tau = 1 is 832 steps or 16.77 samples; the tenth channel is 9 strides of 16 later."""
    found = mg.trajectories(1.0, count=2, samples=200, channels=10, seed=5)
    assert found.shape == (2, 200, 10)
    for i in range(1, 10):
        np.testing.assert_array_equal(found[:, 16 * i :, 0], found[:, : 200 - 16 * i, i])
    np.testing.assert_array_equal(mg.trajectories(1.0, count=1, samples=200, channels=10, seed=5), found[:1])
    assert np.abs(mg.trajectories(1.0, count=1, samples=200, channels=10, seed=6) - found[:1]).max() > 0.01


def test_a_series_is_what_the_original_generator_would_have_made():
    """Step by step after the facts of the original: sampling, transient, stride and history."""
    tau, samples, d = 1.0, 120, 4
    random = np.random.RandomState([9, 1000])
    ic = random.uniform(size=10)
    mem = int(np.ceil(tau / mg.DT))
    history = ic[0] * (1 + 0.2 * random.uniform(size=1 + mem))
    history[-10:] = ic
    nt = int(np.ceil(mg.PERIOD / mg.DT * samples / 100))
    clipping = int(np.ceil(mem / (nt / samples)))
    n, nt = samples + (d + 1) * clipping, nt + (d + 1) * mem
    x = np.asarray([*plain_loop(history, nt - 1, mg.DT), 0.0])
    series = x[np.linspace(0, nt, n).astype(int)]
    stride = int(n / nt * mem)
    columns = [series[i * stride : len(series) - (d - i) * stride] for i in range(d)]
    expected = np.vstack(columns)[:, clipping : samples + clipping].T
    found = mg.trajectories(tau, count=1, samples=samples, channels=d, seed=9)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_task_predicts_half_a_series_ahead():
    delayed, ahead = (tasks.load("mackey_glass", tau=1, form=form) for form in ("delayed", "ahead"))
    assert (delayed.name, delayed.d_in, delayed.d_out, delayed.length) == ("mackey_glass", 10, 10, 512)
    assert (ahead.name, ahead.d_in, ahead.d_out, ahead.length) == ("mackey_glass-ahead", 1, 1, 512)
    assert [len(part) for part in delayed.splits.values()] == [204, 52, 52]
    assert (delayed.metric, delayed.loss, delayed.higher_is_better) == ("smape", "smape", False)
    assert delayed.encoding(delayed.train.x).tobytes() == delayed.train.x.tobytes()
    # Every delayed channel is an earlier one shifted: also across the border between input and target.
    whole = np.concatenate([delayed.test.x, delayed.test.y], axis=1)
    np.testing.assert_array_equal(whole[:, 16:, 3], whole[:, :-16, 4])
    assert 0.1 < ahead.train.x.std() < 0.5
    assert tasks.load("mackey_glass", tau=1, form="ahead", seed=1).identity != ahead.identity


def test_selection_on_the_test_split():
    task = tasks.load("mackey_glass", tau=1, form="ahead", selection="test", metric="smape_running")
    assert task.validation is task.test and task.selection == PAPER and len(task.train) == 204
    assert task.metric == "smape_running"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, "expected a delay tau from"),
        ({"tau": "long"}, "expected tau to be a number, got 'long'"),
        ({"form": "both"}, "expected form to be one of delayed, ahead"),
        ({"metric": "rmse"}, "expected metric to be one of smape, smape_running"),
        ({"seed": -1}, "expected a seed from 0"),
        ({"selection": "best"}, "expected selection to be validation or test"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str):
    with pytest.raises(DataError, match=f"mackey_glass: {message}"):
        tasks.load("mackey_glass", **options)
