"""One cell in this process: what it leaves where training gives no model."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import small_task
from tests.sweeps.cells import cells

from qs5.errors import DivergedError
from qs5.sweeps.cell import Cell, run_cell, state_of
from qs5.tasks import Task
from qs5.training import methods

SHORT = ("train.epochs=1", "model.layers=1", "model.dropout=0")


def nothing_finite() -> Task:
    """The small task, with validation data for which no model has a metric."""
    task = small_task()
    x = np.full_like(task.validation.x, np.nan, np.float32)
    return dataclasses.replace(task, validation=dataclasses.replace(task.validation, x=x))


def run(cell: Cell, folder: Path) -> dict[str, Any]:
    return run_cell(cell, folder, load=lambda *_: nothing_finite(), find=Path)


def test_quantized_training_that_diverges_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (cell,) = cells("spec=W8A8", *SHORT, methods=("qat",))
    found = run(cell, tmp_path)
    assert math.isnan(found["value"]) and found["split"] == "test" and found["extra"]["diverged"]
    assert (
        found["n"] == 8 and found["extra"]["spec"].startswith("W8A8") and found["extra"]["cell"] == cell.name
    )
    assert state_of(tmp_path / cell.name) == "done"
    monkeypatch.setattr(methods, "qat", None)
    assert run(cell, tmp_path)["time"] == found["time"]  # not run again


def test_a_float_cell_that_diverges_has_failed(tmp_path: Path):
    """Others would start from it."""
    (cell,) = cells(*SHORT, methods=("fp",))
    with pytest.raises(DivergedError, match="training diverged"):
        run(cell, tmp_path)
    assert state_of(tmp_path / cell.name) == "waiting"
