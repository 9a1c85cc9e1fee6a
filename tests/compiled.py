"""What test folders share that train: a fixture for their conftest."""

from typing import Any

import pytest

from qs5.model.network import S5Model
from qs5.tasks.task import Task
from qs5.training import loop
from qs5.training.distillation import Teacher
from qs5.training.loop import Stepper
from qs5.training.options import TrainOptions


@pytest.fixture(scope="session", autouse=True)
def compile_once():
    """Runs that differ by their seed alone share a compiled step: compiling is most of a short run."""
    original, made = loop.make_stepper, dict[Any, Stepper]()

    def make_stepper(
        model: S5Model, task: Task, options: TrainOptions, steps: int, *, teacher: Teacher | None = None
    ) -> Stepper:
        if teacher is not None:  # its numbers are part of the step
            return original(model, task, options, steps, teacher=teacher)
        key = (model.config, task.encoding, options.replace(seed=0), steps)
        if key not in made:
            made[key] = original(model, task, options, steps)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_stepper", make_stepper)
        yield
