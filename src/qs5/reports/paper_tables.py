"""The paper's tables 1 to 5 as Markdown: what it prints beside what was run here. No number without a record."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from qs5.reports.paper_commands import how_to_run
from qs5.reports.paper_rows import Row, Section, Wanted, load_paper, sections_of
from qs5.reports.results import Group, Result, grouped, seeds_of
from qs5.reports.tables import markdown

NOT_RUN = "Not run here (the records.jsonl of such a sweep goes into the folder of results)"
HEADER = ("configuration", "bits", "paper", "here, the paper's way", "here, deployable")


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
        "residual stream. Decay and angle: of Lambda-bar, in place of its parts, with as many bits (`form=polar`). "
        "PTQ rounds weights as `rounding=auto` has it where nothing else is said.\n",
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
    groups = grouped(r for r in sources.results if wanted.fits(r))
    return sorted(groups, key=lambda group: group.results[0].form)


def _scales(sections: Sequence[Section], sources: Sources) -> _Scales:
    wanted = [w for section in sections for row in section.rows for w in row.ways if w is not None]
    firsts = [group.results[0] for w in wanted for group in _found(w, sources)]
    return _Scales(len({r.brief for r in firsts}) > 1, len({r.trained for r in firsts}) > 1)


def _value(group: Group, scales: _Scales, notes: _Notes) -> str:
    first = group.results[0]
    commits = ", ".join(dict.fromkeys(r.commit for r in group.results))
    calls = ", ".join(f"`{call}`" for call in dict.fromkeys(r.call for r in group.results))
    changes = "".join(f", {k}={v}" for k, v in first.changes)
    if first.extra.get("lr_factor"):
        changes += f", learning rates times {first.extra['lr_factor']:g}"
    mark = notes.record(
        f"{first.method} {first.spec}{changes}, {seeds_of(group.results)}; {first.task}, {first.scale}; "
        f"commit {commits}; {calls}"
    )
    parts = (group.percent, first.form, first.rounded, *scales.of(first), first.start, first.other_data)
    return f"{', '.join(part for part in parts if part)} {mark}"


def _remarks(table: Mapping[str, Any]) -> list[str]:
    found = [f"\\* {c['row']}, {c['column']}: {c['why']}." for c in table.get("corrections", ())]
    return [*table.get("notes", ()), *found]


def _list(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}\n", *(f"- {line}" for line in lines), ""] if lines else []
