"""Runs as a report reads them: run.json, records.jsonl and inspection.json of a folder, as plain JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qs5.errors import UserError
from qs5.files import read_jsonl

COMPONENTS = ("a", "b", "c", "d", "dense")
GATES = {"gelu": 0, "half_glu1": 1, "half_glu2": 1, "full_glu": 2}


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What is known of a run.

    info: run.json. records: every epoch on validation data, every judgement. inspection: what `qs5 inspect --save`
    left, or None. integer_bytes: size of a model.qs5 beside it, or None.
    """

    name: str
    info: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]
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
    def label(self) -> str:
        """Method, spec and seed."""
        spec = self.info.get("spec")
        return f"{self.info['method']} {'float' if spec is None else spec['name']}, seed {self.seed}"

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.info["recipe"]["train"]["seed"]

    @property
    def sizes(self) -> dict[str, int]:
        """Weights of each component, as numbers."""
        return weights_of(self.info["recipe"]["model"])

    @property
    def weight_bits(self) -> float:
        """Mean bits of a weight; 32 for float."""
        sizes = self.sizes
        return sum(self.bits_of(name) * n for name, n in sizes.items()) / sum(sizes.values())

    def bits_of(self, component: str) -> int:
        """Bits of the weights of a component."""
        spec = self.info.get("spec") or {}
        return spec.get(component) or 32


def weights_of(model: Mapping[str, Any]) -> dict[str, int]:
    """Numbers in Lambda-bar, B-bar, C (complex ones count two), D and the dense layers of a configuration."""
    H, layers = model["H"], model["layers"]
    M = model["P"] // 2 if model["conj_sym"] else model["P"]
    directions = 2 if model["bidirectional"] else 1
    dense = model["d_in"] * H + H * model["d_out"] + layers * GATES[model["activation"]] * H * H
    return {
        "a": 2 * layers * M,
        "b": 2 * layers * M * H,
        "c": 2 * layers * M * H * directions,
        "d": layers * H,
        "dense": dense + (4 * H * H if model["head"] == "retrieval" else 0),
    }


def read_runs(folder: Path, name: str) -> list[RunData]:
    """The run of a folder, or all finished runs right below it (a sweep). Raises UserError when there is none."""
    if (folder / "run.json").is_file():
        return [_read(folder, name)]
    below = sorted(path.parent for path in folder.glob("*/run.json"))
    if not below:
        raise UserError(
            f"{name}: expected a run (a folder with run.json), a sweep's folder or a zoo model, got neither"
        )
    return [_read(path, path.name) for path in below]


def _read(folder: Path, name: str) -> RunData:
    inspection, lowered = folder / "inspection.json", folder / "model.qs5"
    try:
        return RunData(
            name=name,
            info=json.loads((folder / "run.json").read_text()),
            records=tuple(read_jsonl(folder / "records.jsonl")),
            inspection=json.loads(inspection.read_text()) if inspection.is_file() else None,
            integer_bytes=lowered.stat().st_size if lowered.is_file() else None,
        )
    except json.JSONDecodeError as error:
        raise UserError(f"{folder}: a file of the run is no JSON ({error}); it is damaged") from error
