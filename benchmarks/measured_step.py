"""One training step as `qs5 train` does it (loss, gradient, optimizer), its time and the memory of its process.

A process is measured once: its peak of resident memory never falls again, so every point needs a process of its own.
"""

import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from qs5.model.arithmetic import Arithmetic, FloatArithmetic
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model, init_model
from qs5.quantization.build import arithmetic_for_spec
from qs5.quantization.calibration import calibrate, plan_grids
from qs5.quantization.spec import spec_of
from qs5.tasks.task import Encoding, Split, Task
from qs5.training import record
from qs5.training.evaluate import encode
from qs5.training.loop import initial_state, make_stepper
from qs5.training.options import TrainOptions

CALIBRATION_LENGTH = 64
"""Grids are data: a short sequence gives a program of the same speed."""
LEAST_STEPS, MOST_STEPS = 3, 20


class Measured(NamedTuple):
    """Median seconds of a step (None: none was timed) and all of them, seconds of the first with its compilation,
    MiB: peak of the process, and its peak before the first step, when model and data were there."""

    seconds: float | None
    times: list[float]
    first: float
    peak_mib: int
    before_mib: int


def random_task(*, length: int, sequences: int, classes: int = 10) -> Task:
    """Random images of one channel, as sMNIST stores them."""
    rng = np.random.default_rng(0)
    split = Split(
        x=rng.integers(0, 256, (sequences, length, 1)).astype(np.uint8),
        y=rng.integers(0, classes, sequences).astype(np.int32),
        lengths=None,
    )
    return Task(
        name="random", train=split, validation=split, test=split,
        encoding=Encoding(scale=(1 / 255,), offset=(0.0,)), classes=tuple(map(str, range(classes))),
        units=None, objective="classification", metric="accuracy",
    )  # fmt: skip


def measure(
    config: ModelConfig,
    options: TrainOptions,
    task: Task,
    *,
    spec: str | None,
    budget: float,
    least: int = LEAST_STEPS,
) -> Measured:
    """Steps on the whole training split as one batch: after the first one at least `least`, for about `budget` seconds;
    a budget of 0 times none."""
    model = init_model(jax.random.key(0), config)
    arithmetic = _arithmetic(model, task, spec)
    stepper = make_stepper(model, task, options, 100)
    state = initial_state(model, stepper.optimizer, task)
    x, y = jax.device_put((task.train.x, task.train.y))
    current, opt_state = state.model, state.opt_state

    def step() -> float:
        nonlocal current, opt_state
        begin = time.perf_counter()
        current, opt_state, loss = stepper.step(current, opt_state, x, y, None, jax.random.key(1), arithmetic)
        jax.block_until_ready((current, opt_state))
        assert np.isfinite(float(loss))
        return time.perf_counter() - begin

    before = record.peak_mib() or 0
    first = step()
    times = _times(step, budget, least)
    median = statistics.median(times) if times else None
    return Measured(median, times, first, record.peak_mib() or 0, before)


def _times(step: Any, budget: float, least: int) -> list[float]:
    times: list[float] = []
    while budget and len(times) < MOST_STEPS and (len(times) < least or sum(times) < budget):
        times.append(step())
    return times


def _arithmetic(model: S5Model, task: Task, spec: str | None) -> Arithmetic:
    """Float, or the spec's with grids from a few short sequences."""
    if spec is None:
        return FloatArithmetic()
    chosen = spec_of(spec)
    x = encode(jax.device_put(task.train.x[:2, :CALIBRATION_LENGTH]), task.encoding)
    stats = calibrate(model, [(x, None)], data="random")
    return arithmetic_for_spec(chosen, model.config, plan_grids(stats, chosen, model.config))
