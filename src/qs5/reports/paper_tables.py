"""The paper's tables 1 to 5: what it prints beside what was run here. No number without a record."""

import functools
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from qs5.reports.results import Group, Result, Way, grouped, seeds_of
from qs5.reports.tables import markdown

TITLES = {
    "smnist": "sMNIST",
    "listops": "ListOps",
    "text": "Text",
    "retrieval": "Retrieval",
    "scifar": "sCIFAR",
    "pathfinder": "Pathfinder",
}
TABLES = ("table1", "table2", "table3", "table4", "table5")
SEEDS = "seed=0,1,2"
REPLACED = {"gelu": "qgelu", "gate": "hard_sigmoid"}
"""The paper's pointwise functions in a quantized network."""
PLAIN = {"gelu": "gelu", "gate": "sigmoid"}
LAYER_NORM = "model.norm=layer model.norm_bias=false"
BATCH_NORM_IN_QAT = ("retrieval", "pathfinder")
"""Tasks whose QAT scripts keep batch norm, whatever the paper's appendix A.2 says."""
Length = Literal["any", "one", "tenth"]
NOT_RUN = "Not run here (the records.jsonl of such a sweep goes into the folder of results)"
HEADER = ("configuration", "bits", "paper", "here, the paper's way", "here, deployable")


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
        """Whether a result is one of these."""
        same = (r.stands_for, r.method, r.spec, r.way) == (self.task, self.method, self.spec, self.way)
        operators = all(r.model.get(name) == value for name, value in self.model.items())
        return same and operators and self._fits_changes(dict(r.changes)) and self._fits_length(r)

    def _fits_changes(self, changes: dict[str, str]) -> bool:
        if self.way != "paper":
            return changes.keys() <= {"rounding"}
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


# -- Markdown ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sources:
    """What a table may draw on: results, widths of the presets in both ways, names of recipes."""

    results: Sequence[Result]
    widths: Mapping[str, str]
    recipes: Collection[str]


class _Notes:
    """Numbered records and lettered commands, each once."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}
        self.commands: dict[str, str] = {}

    def record(self, text: str) -> str:
        return self.records.setdefault(text, f"[{len(self.records) + 1}]")

    def command(self, text: str) -> str:
        return self.commands.setdefault(text, f"[{_letters(len(self.commands))}]")


class _Scales(NamedTuple):
    """Which words every value of a table needs beside it, since it stands near values of another scale."""

    model: bool
    epochs: bool

    def of(self, r: Result) -> tuple[str, str]:
        """The words of one result."""
        return r.brief if self.model else "", r.trained if self.epochs else ""


def _letters(n: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    return (_letters(n // 26 - 1) if n >= 26 else "") + chr(ord("a") + n % 26)


def render(name: str, sources: Sources) -> str:
    """One table as Markdown, with the records and the commands that its cells point to."""
    paper = load_paper()
    table, notes, parts, sections = paper[name], _Notes(), [], sections_of(name, paper)
    scales = _scales(sections, sources)
    for section in sections:
        rows = [_cells(row, section, sources, notes, scales) for row in section.rows]
        parts.append(f"## {section.title}\n\n{markdown(HEADER, rows)}")
    text = [
        f"# Table {name[-1]}: {table['caption']}\n",
        f"Paper: {paper['source']}. Accuracy on the test data in %, epoch selected on validation data here. Several "
        "seeds: mean (lowest to highest). Bits are those of the deployable way; the paper's has a float state and "
        "residual stream.\n",
        *parts,
        *_list("What the paper's numbers say", _remarks(table)),
        *_list("Records", [f"{mark} {text}" for text, mark in notes.records.items()]),
        *_list(
            NOT_RUN,
            [f"{mark} {text}" for text, mark in notes.commands.items()],
        ),
    ]
    return "\n".join(text)


def _cells(row: Row, section: Section, sources: Sources, notes: _Notes, scales: _Scales) -> tuple[str, ...]:
    wanted = next((w for w in row.ways if w is not None), None)
    bits = "-" if wanted is None else sources.widths.get(wanted.spec, "float")
    ours = [_cell(w, section, sources, notes, scales) for w in row.ways]
    return (row.label, bits, row.paper, *ours)


def _cell(wanted: Wanted | None, section: Section, sources: Sources, notes: _Notes, scales: _Scales) -> str:
    if wanted is None:
        return "-"
    groups = _found(wanted, sources)
    if not groups:
        return f"not run here {notes.command(how_to_run(wanted, section, sources.recipes))}"
    return "<br>".join(_value(group, scales, notes) for group in groups)


def _found(wanted: Wanted, sources: Sources) -> list[Group]:
    return grouped(r for r in sources.results if wanted.fits(r))


def _scales(sections: Sequence[Section], sources: Sources) -> _Scales:
    wanted = [w for section in sections for row in section.rows for w in row.ways if w is not None]
    firsts = [group.results[0] for w in wanted for group in _found(w, sources)]
    return _Scales(len({r.brief for r in firsts}) > 1, len({r.trained for r in firsts}) > 1)


def _value(group: Group, scales: _Scales, notes: _Notes) -> str:
    first = group.results[0]
    commits = ", ".join(dict.fromkeys(r.commit for r in group.results))
    calls = ", ".join(f"`{call}`" for call in dict.fromkeys(r.call for r in group.results))
    changes = "".join(f", {k}={v}" for k, v in first.changes)
    if "lr_factor" in first.extra:
        changes += f", learning rates times {first.extra['lr_factor']:g}"
    mark = notes.record(
        f"{first.method} {first.spec}{changes}, {seeds_of(group.results)}; {first.task}, {first.scale}; "
        f"commit {commits}; {calls}"
    )
    parts = (group.percent, *scales.of(first), first.start, first.other_data)
    return f"{', '.join(part for part in parts if part)} {mark}"


def _remarks(table: Mapping[str, Any]) -> list[str]:
    found = [f"\\* {c['row']}, {c['column']}: {c['why']}." for c in table.get("corrections", ())]
    return [*table.get("notes", ()), *found]


def _list(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}\n", *(f"- {line}" for line in lines), ""] if lines else []


# -- commands ---------------------------------------------------------------------------------------------------


def how_to_run(wanted: Wanted, section: Section, recipes: Collection[str]) -> str:
    """The command that fills a cell, and all cells of its section that are like it."""
    if wanted.task not in recipes:
        return f"{TITLES[wanted.task]}: this version of qs5 has no recipe `{wanted.task}`."
    command = f"`{command_for(wanted, section)}`"
    small = f"{wanted.task}-small"
    more = " and without train.*" if "train." in command else ""
    smaller = (
        f" With `{small}` in place of `{wanted.task}`{more} it runs on two cores." if small in recipes else ""
    )
    return f"needs a GPU at the paper's scale, command: {command}.{smaller}"


def command_for(wanted: Wanted, section: Section) -> str:
    """A sweep over the configurations of a section that differ from `wanted` in their spec alone."""
    like = [w for row in section.rows for w in row.ways if w is not None and _same_but_spec(w, wanted)]
    words = [f"spec={','.join(dict.fromkeys(w.spec for w in like))}"] if wanted.method != "fp" else []
    words += _settings(wanted)
    settings = load_paper()["settings"].get(wanted.task, {})
    words += [*settings.get("all", ()), *settings.get(wanted.method, ())]
    out = f"runs/{wanted.task}-{wanted.method}-{wanted.way}"
    return f"qs5 sweep {wanted.task} --method {wanted.method} --grid {' '.join([*words, SEEDS])} -o {out}"


def _same_but_spec(a: Wanted, b: Wanted) -> bool:
    return all(
        getattr(a, name) == getattr(b, name)
        for name in ("task", "method", "way", "model", "length", "quantized_norm")
    )


def _settings(wanted: Wanted) -> list[str]:
    words: list[str] = []
    if wanted.way == "paper":
        words += ["schedule=parallel", "range_rule=aqt"]
        words += [] if wanted.method == "ptq" else ["quantized_backward=true"]
        words += [] if wanted.quantized_norm else ["quantized_norm=false"]
    if wanted.method != "fp":
        words += [f"{k}={v}" for k, v in wanted.model.items() if k != "norm" and PLAIN[k] != v]
    batch = wanted.model.get("norm") == "batch" or (
        wanted.method == "qat" and wanted.task in BATCH_NORM_IN_QAT and "norm" not in wanted.model
    )
    if wanted.model.get("norm") == "layer" or (wanted.way == "paper" and not batch):
        words.append(LAYER_NORM)
    if wanted.length == "one":
        words.append("qaft.epochs=1")
    return words
