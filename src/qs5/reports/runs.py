"""Runs as a report reads them: run.json, records.jsonl and inspection.json of a folder, as plain JSON."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qs5.errors import UserError
from qs5.files import read_jsonl
from qs5.reports.results import measured
from qs5.reports.weights import Precision

WAYS = {"sequential": "deployable", "parallel": "the paper's way"}
"""By the schedule of the recurrence."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What is known of a run.

    place: what the command line calls it. shipped: a zoo model, which no verb writes to. info: run.json. records: every
    epoch on validation data, every judgement. precision: the bits of every weight. inspection: what
    `qs5 inspect --save` left, or None. integer_bytes: size of a model.qs5 beside it, or None.
    """

    name: str
    place: str
    shipped: bool = False
    info: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]
    precision: Precision
    inspection: Mapping[str, Any] | None = None
    integer_bytes: int | None = None

    @property
    def epochs(self) -> list[Mapping[str, Any]]:
        """Records of training, one an epoch."""
        return [r for r in self.records if r.get("epoch") is not None]

    @property
    def judged(self) -> Mapping[str, Any] | None:
        """The last record on the test split."""
        found = [r for r in self.records if r.get("epoch") is None and r["split"] == "test"]
        return found[-1] if found else None

    @property
    def result(self) -> Mapping[str, Any] | None:
        """That record, where it has a number."""
        return None if self.diverged else self.judged

    @property
    def diverged(self) -> bool:
        """Whether the training gave no model: its record says so, or none of its epochs has a finite loss."""
        if self.judged is not None:
            return not math.isfinite(measured(self.judged))
        losses = [r["loss"] for r in self.epochs]
        return bool(losses) and not any(map(math.isfinite, losses))

    @property
    def kind(self) -> str:
        """Method, and for a quantized run which of the two ways: what is one series in a chart."""
        spec = self.info.get("spec")
        return self.info["method"] + ("" if spec is None else f", {WAYS[spec['schedule']]}")

    @property
    def label(self) -> str:
        """Method, spec and seed."""
        return f"{self.info['method']} {self.spec}, seed {self.seed}"

    @property
    def spec(self) -> str:
        """The name of the spec."""
        spec = self.info.get("spec")
        return "float" if spec is None else spec["name"]

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.info["recipe"]["train"]["seed"]


PrecisionOf = Callable[[Path], Precision]
"""The bits of a run's weights, from its folder. Specs and sites are not known here: `qs5.cli.precision` knows them."""


def read_runs(folder: Path, name: str, *, precision_of: PrecisionOf, shipped: bool = False) -> list[RunData]:
    """The run of a folder, or all runs right below it (a sweep). Raises UserError when there is none."""
    if (folder / "run.json").is_file():
        return [_read(folder, name, name, precision_of, shipped)]
    below = sorted(path.parent for path in folder.glob("*/run.json"))
    if not below:
        raise UserError(
            f"{name}: expected a run (a folder with run.json), a sweep's folder or a zoo model, got neither"
        )
    return [_read(path, path.name, str(Path(name) / path.name), precision_of, shipped) for path in below]


def _read(folder: Path, name: str, place: str, precision_of: PrecisionOf, shipped: bool) -> RunData:
    inspection, lowered = folder / "inspection.json", folder / "model.qs5"
    try:
        return RunData(
            name=name,
            place=place,
            shipped=shipped,
            info=json.loads((folder / "run.json").read_text()),
            records=tuple(read_jsonl(folder / "records.jsonl")),
            precision=precision_of(folder),
            inspection=json.loads(inspection.read_text()) if inspection.is_file() else None,
            integer_bytes=lowered.stat().st_size if lowered.is_file() else None,
        )
    except json.JSONDecodeError as error:
        raise UserError(f"{folder}: a file of the run is no JSON ({error}); it is damaged") from error
