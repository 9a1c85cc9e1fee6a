"""The paper's tables 1 to 5 as rows: what it prints, and which results may stand beside it."""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qs5.reports.results import Result, Way

TITLES = {
    "smnist": "sMNIST",
    "listops": "ListOps",
    "text": "Text",
    "retrieval": "Retrieval",
    "scifar": "sCIFAR",
    "pathfinder": "Pathfinder",
}
TABLES = ("table1", "table2", "table3", "table4", "table5")
REPLACED = {"gelu": "qgelu", "gate": "hard_sigmoid"}
"""The paper's pointwise functions in a quantized network."""
PLAIN = {"gelu": "gelu", "gate": "sigmoid"}
Length = Literal["any", "one", "tenth"]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which results may fill a cell, and how to get them.

    model: sizes or operators that must be so. length: of a fine-tuning, in epochs: any, one, or a tenth of the float
    model's. quantized_norm: whether layer norm is quantized (the paper's way alone).
    """

    task: str
    method: str
    spec: str
    way: Way
    model: Mapping[str, Any] = field(default_factory=dict)
    length: Length = "any"
    quantized_norm: bool = True

    def fits(self, r: Result) -> bool:
        """Whether a result is one of these, and made by a commit that can be found again."""
        same = (r.stands_for, r.method, r.spec, r.way) == (self.task, self.method, self.spec, self.way)
        operators = all(r.model.get(name) == value for name, value in self.model.items())
        clean = not r.commit.endswith("-dirty")
        return clean and same and operators and self._fits_changes(dict(r.changes)) and self._fits_length(r)

    def _fits_changes(self, changes: dict[str, str]) -> bool:
        if self.way != "paper":
            return changes.keys() <= {"rounding", "form"}
        norm = changes.pop("quantized_norm", "true") == "true"
        return norm == self.quantized_norm and changes.keys() <= {
            "schedule",
            "range_rule",
            "quantized_backward",
        }

    def _fits_length(self, r: Result) -> bool:
        if self.length == "any":
            return True
        if "examples" in r.extra:  # a part of the data: less than an epoch
            return False
        tenth = None if r.parent_epochs is None else max(1, round(0.1 * r.parent_epochs))
        return r.epochs == (1 if self.length == "one" else tenth)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a section: the paper's value as it prints it, a better one if known, and what fills our cells."""

    label: str
    paper: str
    ways: tuple[Wanted | None, Wanted | None]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows under a heading."""

    title: str
    rows: tuple[Row, ...]


@functools.cache
def load_paper() -> dict[str, Any]:
    """The paper's numbers (paper.toml)."""
    return tomllib.loads(Path(__file__).with_name("paper.toml").read_text())


def sections_of(name: str, paper: Mapping[str, Any]) -> tuple[Section, ...]:
    """The sections of one table."""
    build = {"table3": _operators_in_training, "table4": _operators_afterwards, "table5": _methods}
    return build.get(name, _tasks)(paper[name])


def printed(name: str, row: str, column: str) -> str:
    """What one of the paper's tables prints, without corrections; a dash for a row that it has not."""
    table = load_paper()[name]
    return _number(table, row, column) if row in table["rows"] else "-"


def _number(table: Mapping[str, Any], row: str, column: str) -> str:
    value = table["rows"][row][table["columns"].index(column)]
    return f"{value:.2f}" if isinstance(value, int | float) else str(value)


def _printed(table: Mapping[str, Any], row: str, column: str) -> str:
    text = _number(table, row, column)
    better = [c for c in table.get("corrections", ()) if (c["row"], c["column"]) == (row, column)]
    if not better:
        return text
    return f"{text}, rather {better[0]['value']:.2f} *" if "value" in better[0] else f"{text} *"


def _both(task: str, method: str, spec: str, **more: Any) -> tuple[Wanted, Wanted]:
    """The same configuration in the paper's way and in the deployable one."""
    return (
        Wanted(task=task, method=method, spec=spec, way="paper", model=REPLACED, **more),
        Wanted(task=task, method=method, spec=spec, way="deployable", model=PLAIN, **more),
    )


def _tasks(table: Mapping[str, Any]) -> tuple[Section, ...]:
    """Tables 1 and 2: a section a task."""
    return tuple(
        Section(
            title=TITLES[task],
            rows=tuple(
                Row(label=label, paper=_printed(table, label, task), ways=_ways(task, *label.split(" ", 1)))
                for label in table["rows"]
            ),
        )
        for task in table["columns"]
    )


def _ways(task: str, method: str, spec: str = "") -> tuple[Wanted | None, Wanted | None]:
    method = method.lower()
    if spec == "published":
        return None, None
    if method == "fp":
        norm = {"norm": spec} if spec else {}
        return Wanted(task=task, method="fp", spec="float", way="float", model=norm), None
    if spec.endswith("*"):
        return _products_only(task, {}), None
    return _both(task, method, spec)


def _products_only(task: str, model: Mapping[str, Any]) -> Wanted:
    return Wanted(
        task=task, method="ptq", spec="W8A8", way="paper", model=PLAIN | dict(model), quantized_norm=False
    )


def _operators_in_training(table: Mapping[str, Any]) -> tuple[Section, ...]:
    """Table 3: a section a pair of GELU and norm; the hard sigmoid goes with qGELU, as in tables 1 and 2."""
    sections = []
    for column in table["columns"]:
        gelu, norm = column.split()
        title = f"{'qGELU' if gelu == 'qgelu' else 'GELU'} and {norm} norm"
        rows = tuple(
            Row(label=spec, paper=_printed(table, spec, column), ways=_trained(spec, gelu, norm))
            for spec in table["rows"]
        )
        sections.append(Section(title=title, rows=rows))
    return tuple(sections)


def _trained(spec: str, gelu: str, norm: str) -> tuple[Wanted | None, Wanted | None]:
    model = {"gelu": gelu, "gate": REPLACED["gate"] if gelu == "qgelu" else PLAIN["gate"], "norm": norm}
    if spec == "FP":
        float_model = PLAIN | {"norm": norm}
        missing = gelu == "qgelu" and norm == "batch"
        return (
            None
            if missing
            else Wanted(task="smnist", method="fp", spec="float", way="float", model=float_model)
        ), None
    ways: tuple[Way, Way] = ("paper", "deployable")
    first, second = (Wanted(task="smnist", method="qat", spec=spec, way=way, model=model) for way in ways)
    return first, second


def _operators_afterwards(table: Mapping[str, Any]) -> tuple[Section, ...]:
    """Table 4: single replacements after training."""
    layer = {"norm": "layer"}
    replaced = {
        "none": ({}, False),
        "hard_sigmoid": ({"gate": "hard_sigmoid"}, False),
        "qgelu": ({"gelu": "qgelu"}, False),
        "qln": ({}, True),
        "all": (REPLACED, True),
    }
    labels = {"baseline": "float", "none": "W8A8", "qln": "W8A8 + qLN", "all": "W8A8 + HS + qGELU + qLN"}
    labels |= {"hard_sigmoid": "W8A8 + HS", "qgelu": "W8A8 + qGELU"}
    rows = [
        Row(
            label=labels["baseline"],
            paper=_printed(table, "baseline", "accuracy"),
            ways=(Wanted(task="smnist", method="fp", spec="float", way="float", model=layer), None),
        )
    ]
    for name, (operators, norm) in replaced.items():
        model = PLAIN | operators | layer
        wanted = Wanted(
            task="smnist", method="ptq", spec="W8A8", way="paper", model=model, quantized_norm=norm
        )
        rows.append(Row(label=labels[name], paper=_printed(table, name, "accuracy"), ways=(wanted, None)))
    return (Section(title="PTQ of a float model with layer norm", rows=tuple(rows)),)


def _methods(table: Mapping[str, Any]) -> tuple[Section, ...]:
    """Table 5: a section a method."""
    titles = {
        "qat": ("QAT", "qat", "any"),
        "ptq": ("PTQ", "ptq", "any"),
        "qaft 1": ("QAFT, one epoch", "qaft", "one"),
        "qaft tenth": ("QAFT, a tenth of the epochs", "qaft", "tenth"),
    }
    return tuple(
        Section(
            title=titles[column][0],
            rows=tuple(
                Row(
                    label=spec,
                    paper=_printed(table, spec, column),
                    ways=_both("smnist", titles[column][1], spec, length=titles[column][2]),
                )
                for spec in table["rows"]
            ),
        )
        for column in table["columns"]
    )
