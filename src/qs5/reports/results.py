"""Recorded results, as tables and figures want them. Reads records (`qs5.training.record`) as plain JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qs5.errors import UserError

Way = Literal["paper", "deployable", "float"]
"""paper: dynamic scales in a parallel scan. deployable: static scales, sequential."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One record of a metric on the test split.

    spec: the preset ("float" for a float model); changes: what was changed after it, `state=8` as ("state", "8").
    model: sizes and operators, as far as the record, or the run that it started from, says.
    epochs: of the training; for qaft of the fine-tuning, after `parent_epochs` in float. None where unknown.
    """

    task: str
    method: str
    spec: str
    way: Way
    seed: int
    metric: str
    value: float
    changes: tuple[tuple[str, str], ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    parent_epochs: int | None = None
    length: int | None = None
    recipe: str = ""
    commit: str = ""
    command: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> str:
        """Sizes and epochs in a few words."""
        m, parts = self.model, [self.recipe] if self.recipe else []
        if "layers" in m:
            parts.append(f"{m['layers']} layers, H={m['H']}, P={m['P']}, {m['norm']} norm")
        if self.length is not None:
            parts.append(f"length {self.length}")
        if self.epochs is not None:
            more = (
                f" after {self.parent_epochs} in float"
                if self.method == "qaft" and self.parent_epochs
                else ""
            )
            few = f" of {self.extra['examples']} sequences" if "examples" in self.extra else ""
            parts.append(f"{self.epochs} epoch{'s' if self.epochs != 1 else ''}{few}{more}")
        return ", ".join(parts) or "scale not recorded"


def read_results(folder: Path, *, runs: Mapping[str, Mapping[str, Any]] | None = None) -> list[Result]:
    """Every test result in the .jsonl files below a folder, in the order of the files' names and lines.

    runs: contents of run.json by name, for the records that say no more than which run they started from.
    Raises UserError for a line that is no JSON.
    """
    found = []
    for path in sorted(folder.rglob("*.jsonl")):
        for n, line in enumerate(path.read_text().splitlines(), start=1):
            if line.strip():
                found.append(_parse(line, f"{path}, line {n}"))
    return [result_of(r, runs or {}) for r in found if r.get("split") == "test"]


def _parse(line: str, source: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{source}: expected one record of JSON a line, got {error}; mend the file"
        ) from error
    if not isinstance(record, dict):
        raise UserError(f"{source}: expected a record, got {line[:40]!r}; mend the file")
    return record


def result_of(record: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> Result:
    """A record as a `Result`."""
    extra = record.get("extra") or {}
    recipe = (runs.get(extra.get("parent") or "") or {}).get("recipe", {})
    spec, changes = _spec(record, extra)
    way: Way = "float" if spec == "float" else "deployable"
    if dict(changes).get("schedule") == "parallel" or "(parallel)" in record["spec"]:
        way = "paper"
    trained = recipe.get("train", {}).get("epochs")
    tuned = record["method"] == "qaft"
    return Result(
        task=record["task"],
        method=record["method"],
        spec=spec,
        way=way,
        seed=record["seed"],
        metric=record["metric"],
        value=record["value"],
        changes=changes,
        model=extra.get("model") or {**recipe.get("model", {}), **_operators(record, way)},
        epochs=extra.get("epochs", None if tuned else trained),
        parent_epochs=extra.get("parent_epochs", trained if tuned else None),
        length=extra.get("length"),
        recipe=extra.get("recipe") or extra.get("parent") or "",
        commit=record["commit"],
        command=record["command"],
        extra=extra,
    )


def _operators(record: Mapping[str, Any], way: Way) -> dict[str, str]:
    """Of records from before they named their operators: benchmarks.smnist_table runs the paper's way with these."""
    ours = record["command"].startswith("smnist_table.py") and way == "paper"
    return {"gelu": "qgelu", "gate": "hard_sigmoid"} if ours else {}


def _spec(record: Mapping[str, Any], extra: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Preset and changes, from the spec's own text where the record has it."""
    text = extra.get("spec") or record["spec"].partition(" (")[0]
    head, *rest = text.split(",")
    pairs = [part.partition("=") for part in rest]
    return head, tuple((key.strip(), value.strip()) for key, _, value in pairs)


@dataclass(frozen=True)
class Group:
    """Results that differ in nothing but the seed."""

    results: tuple[Result, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return sum(r.value for r in self.results) / len(self.results)

    @property
    def spread(self) -> float:
        """Largest minus smallest."""
        values = [r.value for r in self.results]
        return max(values) - min(values)


def grouped(results: Iterable[Result]) -> list[Group]:
    """Results by everything but seed; where a seed was run twice in the same way, the later record counts."""
    groups: dict[str, dict[int, Result]] = {}
    for r in results:
        identity = (r.task, r.method, r.spec, sorted(r.changes), r.scale, sorted(map(str, r.model.items())))
        groups.setdefault(repr(identity), {})[r.seed] = r
    return [Group(tuple(seeds[s] for s in sorted(seeds))) for seeds in groups.values()]


def seeds_of(results: Sequence[Result]) -> str:
    """`seed 0` or `seeds 0, 1, 2`."""
    seeds = ", ".join(str(r.seed) for r in results)
    return f"seed{'s' if len(results) > 1 else ''} {seeds}"
