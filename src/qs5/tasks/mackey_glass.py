"""`mackey_glass`: half of a chaotic series is read, and every step predicts the value half a series ahead.

    dQ/dt = beta Q(t - tau) / (1 + Q(t - tau)^n) - gamma Q(t),   beta = 2, gamma = 1, n = 9.65

Two forms of the task:

    delayed   ten channels, as the paper has it: channel i is the same series, i times nearly tau later. The targets are
              the same channels 512 samples on, so that a channel i may be asked for what channel i + m shows already:
              for delays of about 4 to 60 much of this task is to copy an input.
    ahead     one channel, in which nothing of the targets has been seen: output k predicts sample k + 512.

Source: Q-S5 section 3.1, appendix B.1 and `experiments/dynamical`; the constants and the sampling are those of dysts
(W. Gilpin, 2021), whose generator it calls, unseeded. Ours is seeded, and has a validation split of its own.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.signal import lfilter

from qs5.tasks import tokens
from qs5.tasks.errors import DataError
from qs5.tasks.splits import check_seed
from qs5.tasks.task import Encoding, Metric, Split, Task

BETA, GAMMA, POWER = 2.0, 1.0, 9.65
DT = 0.0012027363718948435  # step of the forward Euler method
PERIOD = 5.9612230962292045
SAMPLES_PER_PERIOD = 100
CHANNELS = 10
INITIAL = 10  # numbers of the random initial condition
STEPS = 512  # samples that are read, and as many that are predicted
TRAJECTORIES = {"train": 204, "validation": 52, "test": 52}
FORMS = ("delayed", "ahead")
METRICS = ("smape", "smape_running")
CHUNK = 32  # trajectories at a time, to bound the memory


def load_mackey_glass(
    *,
    tau: float = 17,
    form: str = "delayed",
    seed: int = 0,
    selection: str = "validation",
    metric: Metric = "smape",
) -> Task:
    """The task `mackey_glass` (or `mackey_glass-ahead`): x and y (N, 512, channels) float32, not standardized.

    tau: the delay, at least one Euler step; the paper has 1, 9, 17, ..., 57. Some seconds of work below 60.
    form: "delayed" or "ahead", see above.
    seed: of initial conditions and histories.
    selection: "validation" has 52 trajectories of its own beside the paper's 204 and 52; "test" is the paper's.
    metric: "smape" as the paper's code has it, or "smape_running" as it is printed.
    Raises DataError for impossible options.
    """
    tokens.check_selection("mackey_glass", selection)
    _check(tau, form=form, seed=seed, metric=metric)
    d = CHANNELS if form == "delayed" else 1
    count = sum(TRAJECTORIES.values())
    series = trajectories(float(tau), count=count, samples=2 * STEPS, channels=d, seed=seed).astype(
        np.float32
    )
    cuts = np.cumsum(list(TRAJECTORIES.values()))[:-1]
    splits = dict(zip(TRAJECTORIES, map(_split, np.split(series, cuts)), strict=True))
    validation, rule = tokens.selected(splits["validation"], splits["test"], selection)
    return Task(
        name="mackey_glass" if form == "delayed" else "mackey_glass-ahead",
        train=splits["train"],
        validation=validation,
        test=splits["test"],
        encoding=Encoding(scale=(1.0,) * d, offset=(0.0,) * d),
        classes=None,
        units=None,
        objective="regression",
        metric=metric,
        selection=rule,
    )


def _split(series: np.ndarray) -> Split:
    return Split(x=series[:, :STEPS], y=series[:, STEPS:], lengths=None)


def _check(tau: object, *, form: str, seed: object, metric: str) -> None:
    try:
        delay = float(tau)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        delay = math.nan
    if not DT <= delay <= 1000.0:
        raise DataError(
            f"mackey_glass: expected a delay tau from {DT:.4f} to 1000, got {tau!r}; correct the option"
        )
    for name, value, known in (("form", form, FORMS), ("metric", metric, METRICS)):
        if value not in known:
            raise DataError(
                f"mackey_glass: expected {name} to be one of {', '.join(known)}, got {value!r}; choose one"
            )
    try:
        check_seed(seed)
    except DataError as error:
        raise DataError(f"mackey_glass: {error}") from error


# ---- the generator ----


def trajectories(tau: float, *, count: int, samples: int, channels: int, seed: int) -> np.ndarray:
    """`count` series of `samples` samples in `channels` delayed channels, (count, samples, channels) float64.

    The first delay is dropped as transient. What is drawn depends on (tau, seed) alone, the n-th series not on count.
    """
    random = np.random.RandomState([seed, round(1000 * tau)])
    mem = delay_steps(tau)
    found = np.zeros((count, samples, channels))
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        history = np.stack([_history(random, mem) for _ in range(size)], axis=1)
        found[start : start + size] = embedded(history, samples=samples, channels=channels)
    return found


def delay_steps(tau: float) -> int:
    """The delay in Euler steps, rounded up."""
    return math.ceil(tau / DT)


def _history(random: np.random.RandomState, mem: int) -> np.ndarray:
    """Values at steps -mem to 0, (mem + 1,): noise about one random level, then the random initial condition."""
    initial = random.uniform(size=INITIAL)
    values = initial[0] * (1 + 0.2 * random.uniform(size=mem + 1))
    last = min(INITIAL, mem + 1)
    values[-last:] = initial[-last:]
    return values


def embedded(history: np.ndarray, *, samples: int, channels: int) -> np.ndarray:
    """Delayed channels of the series that follow from `history` (mem + 1, N): (N, samples, channels).

    With S = period / dt / 100 Euler steps a sample and a delay of mem steps, R = ceil(mem / S) samples:
    the series is integrated for samples S + (channels + 1) mem steps and sampled evenly at samples + (channels + 1) R
    of them; channel i at time k is sample R + i stride + k, where stride is mem steps in samples, rounded down.
    """
    mem = len(history) - 1
    sampled, steps, dropped, stride = _sampling(mem, samples, channels)
    at = np.linspace(0, steps, sampled).astype(np.int64)
    series = integrate(history, at=at[at < steps])
    starts = [dropped + i * stride for i in range(channels)]
    return np.stack([series[start : start + samples] for start in starts], axis=-1).swapaxes(0, 1)


def _sampling(mem: int, samples: int, channels: int) -> tuple[int, int, int, int]:
    """Samples and Euler steps in all, samples that are dropped, samples between neighbouring channels."""
    steps = math.ceil(PERIOD / DT * samples / SAMPLES_PER_PERIOD)
    dropped = math.ceil(mem / (steps / samples))
    sampled, steps = samples + (channels + 1) * dropped, steps + (channels + 1) * mem
    return sampled, steps, dropped, int(sampled / steps * mem)


def copied_channels(tau: float) -> dict[int, tuple[int, int]]:
    """Targets of the form "delayed" that the inputs show: {channel: (input channel, steps ago)}, the latest each.

    Channel i + m runs m strides ahead of channel i, so the target of channel i at step k, 512 ahead, is the input of
    channel i + m at step k - (m stride - 512), which has been read if that is not in the future.
    """
    stride = _sampling(delay_steps(tau), 2 * STEPS, CHANNELS)[3]
    m = max(1, math.ceil(STEPS / stride))
    delay = m * stride - STEPS
    return {i: (i + m, delay) for i in range(CHANNELS - m)} if delay < STEPS else {}


def integrate(history: np.ndarray, *, at: np.ndarray, dt: float = DT) -> np.ndarray:
    """Forward Euler from `history` (mem + 1, N) at steps -mem..0; the values at the steps `at`, (len(at), N).

        x_{k+1} = (1 - gamma dt) x_k + dt f(x_{k-mem}),   f(x) = beta x / (1 + x^n)

    What is delayed is known for mem steps ahead, and so is its f: the recursion is then a linear filter, and mem steps
    are one call. at: increasing integers >= 0.
    """
    mem = len(history) - 1
    decay, found = 1.0 - GAMMA * dt, np.empty((len(at), history.shape[1]))
    found[at == 0] = history[-1]
    block, done = history, 0  # `block` ends with the value at step `done`
    while done < at[-1]:
        delayed = block[-(mem + 1) : -1]
        force = BETA * delayed / (1.0 + delayed**POWER)
        values, _ = lfilter([dt], [1.0, -decay], force, axis=0, zi=decay * block[-1:])
        inside = (at > done) & (at <= done + mem)
        found[inside] = values[at[inside] - done - 1]
        block, done = np.concatenate([block[-1:], values]), done + mem
    return found
