"""The paper's tables: its numbers are whole, ours come from records only."""

import math
import re
from typing import Any

import pytest
from benchmarks import recurrent_bits, smnist_table
from tests.reports.test_results import MODEL, line

from qs5.quantization.spec import PRESETS, spec_of
from qs5.reports.paper_rows import TABLES, load_paper, printed, sections_of
from qs5.reports.paper_tables import Sources, render
from qs5.reports.results import result_of
from qs5.sweeps.grid import Start, cells_of, parse_axes
from qs5.training.recipe import load_recipe

REPLACED = MODEL | {"gelu": "qgelu", "gate": "hard_sigmoid"}
PAPER_WAY = {"spec": "W8A8,schedule=parallel,range_rule=aqt", "model": REPLACED}


def text_of(name: str, *records: dict[str, Any]) -> str:
    widths = {preset: spec_of(preset).widths() for preset in PRESETS}
    return render(
        name, Sources([result_of(r, {}) for r in records], widths, ("smnist", "text", "text-small"))
    )


def row_of(text: str, section: str, label: str) -> list[str]:
    """The cells of a row below a heading."""
    body = text.split(f"## {section}\n")[1].split("\n## ")[0]
    (found,) = [r for r in body.splitlines() if r.startswith(f"| {label} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


@pytest.mark.parametrize("name", TABLES)
def test_the_numbers_are_whole_and_every_correction_belongs_to_a_cell(name: str):
    table = load_paper()[name]
    assert all(len(values) == len(table["columns"]) for values in table["rows"].values())
    for c in table.get("corrections", ()):
        assert c["row"] in table["rows"] and c["column"] in table["columns"] and c["why"]


def test_tables_agree_where_the_paper_prints_a_number_twice():
    paper = load_paper()
    first, second, fifth = (paper[name]["rows"] for name in ("table1", "table2", "table5"))
    for label, values in first.items():
        if label.startswith("QAT"):
            assert second[label] == values
            assert fifth[label.removeprefix("QAT ")][0] == values[0]
    for spec, values in fifth.items():
        assert second[f"PTQ {spec}"][0] == values[1]
        assert paper["table3"]["rows"][spec][2] == values[0]


def test_the_benchmarks_show_what_the_paper_prints():
    """Some cells, copied from the paper once more; specs that it has not are dashes."""
    values, fewer = recurrent_bits.paper_values(), recurrent_bits.fewer_values()
    assert values["W8A8"] == ("96.27", "99.53", "99.54") and values["W2A8"] == ("11.35", "35.84", "54.75")
    assert fewer["W8A4"] == ("-", "-", "78.23") and fewer["W8A8,state=8"] == ("-", "-", "-")
    assert smnist_table._row("W4A8", lambda *_: "")[2::3] == ("9.74", "10.93")
    assert smnist_table._row("W8A8Abar16", lambda *_: "")[2::3] == ("-", "-")
    assert printed("table3", "FP", "qgelu batch") == "n/a"  # as printed, though no number


@pytest.mark.parametrize("name", TABLES)
def test_without_records_there_is_no_number_of_ours(name: str):
    text = text_of(name)
    rows = [r.strip("|").split("|") for r in text.splitlines() if r.startswith("| ") and "---" not in r]
    ours = {cell.strip() for row in rows if row[0].strip() != "configuration" for cell in row[3:]}
    assert all(cell == "-" or re.fullmatch(r"not run here \[[a-z]+\]", cell) for cell in ours)
    assert "## Records" not in text


def test_a_record_fills_its_cell_and_is_named_with_seed_commit_and_scale():
    text = text_of("table5", line(value=0.98), line(seed=1, value=0.99), line(value=0.97, extra=PAPER_WAY))
    cells = row_of(text, "PTQ", "W8A8")
    assert cells[2:] == ["96.27", "97.00 [1]", "98.50 (98.00 to 99.00) [2]"]
    assert "[2] ptq W8A8, seeds 0, 1; smnist, smnist, 4 layers" in text and "commit abc; `qs5 sweep`" in text
    assert row_of(text, "PTQ", "W4A8")[4].startswith("not run here")


@pytest.mark.parametrize(
    "other",
    [
        line(extra={"spec": "W8A8,state=8"}),
        line(extra={"spec": "W4A8"}),
        line(task="digits"),
        line(commit="abc-dirty"),
        line(method="qaft"),
        line(extra={"model": MODEL | {"gelu": "qgelu"}}),
        line(extra=PAPER_WAY | {"spec": "W8A8,schedule=parallel,quantized_norm=false"}),
        line(extra=PAPER_WAY | {"spec": "W8A8,schedule=parallel,act=4"}),
    ],
)
def test_a_record_of_something_else_fills_no_cell_of_ptq_w8a8(other: dict[str, Any]):
    assert all(
        cell.startswith("not run here") for cell in row_of(text_of("table5", other), "PTQ", "W8A8")[3:]
    )


def test_data_that_stands_in_for_the_benchmark_is_named_in_the_cell_and_never_averaged_with_it():
    own, other = line(task="scifar", value=0.5), line(task="scifar-jpeg", value=0.75, seed=1)
    cell = row_of(text_of("table1", own, other), "sCIFAR", "PTQ W8A8")[4]
    assert cell == "50.00 [1]<br>75.00, data from JPEG files [2]"
    ahead = line(task="scifar-ahead")
    assert row_of(text_of("table1", ahead), "sCIFAR", "PTQ W8A8")[4].startswith("not run here")


@pytest.mark.parametrize("script", ["smnist_table.py", "integer_table.py", "recurrent_bits.py"])
def test_both_roundings_of_weights_fill_a_deployable_cell_and_are_told_apart(script: str):
    old = line(command=f"{script} run --method ptq", value=0.5)
    new, auto = line(value=0.75, extra={"rounding": "nearest"}), line(value=0.875)
    text = text_of("table5", old, auto)
    assert row_of(text, "PTQ", "W8A8")[4] == "50.00, rounded to nearest [1]<br>87.50 [2]"
    assert "[1] ptq W8A8, rounding=nearest, seed 0" in text and "[2] ptq W8A8, seed 0" in text
    assert "[1] ptq W8A8, rounding=nearest, seed 0" in text_of("table5", new)


def test_the_form_of_the_eigenvalues_is_named_in_the_cell():
    parts, polar = line(value=0.25), line(value=0.75, extra={"spec": "W8A8,form=polar"})
    cell = row_of(text_of("table5", parts, polar), "PTQ", "W8A8")[4]
    assert cell == "25.00 [1]<br>75.00, decay and angle [2]"


def test_calibrations_of_one_model_are_one_value_and_their_number_is_said():
    draws = [
        line(value=v, extra={"draw": i, "epochs": 0, "lr_factor": 0.0}) for i, v in enumerate((0.5, 0.75))
    ]
    text = text_of("table5", *draws)
    assert row_of(text, "PTQ", "W8A8")[4] == "62.50 (50.00 to 75.00) [1]"
    assert "[1] ptq W8A8, seed 0, 2 calibrations; smnist" in text


def test_fine_tuning_of_one_epoch_and_of_a_tenth_are_told_apart():
    one = line(method="qaft", value=0.5, extra={"epochs": 1, "parent_epochs": 150})
    tenth = line(method="qaft", value=0.75, extra={"epochs": 15, "parent_epochs": 150})
    text = text_of("table5", one, tenth)
    assert row_of(text, "QAFT, one epoch", "W8A8")[4].startswith("50.00")
    assert row_of(text, "QAFT, a tenth of the epochs", "W8A8")[4].startswith("75.00")


def test_starts_of_fine_tuning_are_told_apart_in_the_cell():
    tuned = {"method": "qaft", "value": 0.5}
    lines = [
        line(**tuned, extra={"spec": spec, "epochs": 1}) for spec in ("W8A8", "W8A8,rounding=reconstructed")
    ]
    cell = row_of(text_of("table5", *lines), "QAFT, one epoch", "W8A8")[4]
    assert cell == "50.00 [1]<br>50.00, from reconstructed weights [2]"


def test_scales_are_not_mixed():
    lines = [line(value=value, extra={"epochs": n}) for value, n in ((0.5, 150), (0.75, 1))]
    cell = row_of(text_of("table5", *lines), "PTQ", "W8A8")[4]
    assert cell == "50.00, 150 epochs [1]<br>75.00, 1 epoch [2]"


def test_a_value_names_its_scale_where_another_row_has_another():
    long = line(value=0.5, extra={"epochs": 150})
    short = line(method="qat", value=0.75, extra={"epochs": 2})
    text = text_of("table5", long, short)
    assert row_of(text, "QAT", "W8A8")[4] == "75.00, 2 epochs [1]"
    assert row_of(text, "PTQ", "W8A8")[4] == "50.00, 150 epochs [2]"


def test_models_of_two_sizes_are_told_apart_in_the_cell():
    small = line(value=0.5, extra={"model": MODEL | {"H": 64, "P": 64}})
    cell = row_of(text_of("table5", small, line(value=0.75)), "PTQ", "W8A8")[4]
    assert cell == f"50.00, H=64, batch norm [1]<br>75.00, H={MODEL['H']}, batch norm [2]"


def test_seeds_of_runs_that_are_called_otherwise_are_one_group_with_both_commands():
    a = line(value=0.5, command="qs5 evaluate runs/x", extra={"recipe": ""})
    b = line(
        seed=1,
        value=0.75,
        command="python -m qs5 sweep smnist -o r --only ptq-s1",
        extra={"recipe": "smnist"},
    )
    text = text_of("table5", a, b)
    assert row_of(text, "PTQ", "W8A8")[4] == "62.50 (50.00 to 75.00) [1]"
    assert "`qs5 evaluate runs/x`, `qs5 sweep smnist -o r`" in text


def test_less_than_an_epoch_is_not_one():
    few = line(method="qaft", value=0.5, extra={"epochs": 1, "parent_epochs": 10, "examples": 5000})
    text = text_of("table5", few)
    for section in ("QAFT, one epoch", "QAFT, a tenth of the epochs"):
        assert row_of(text, section, "W8A8")[4].startswith("not run here")


def test_what_diverged_says_so():
    gone = line(method="qaft", value=0.098, loss=math.nan, extra={"epochs": 1, "parent_epochs": 10})
    assert row_of(text_of("table5", gone), "QAFT, one epoch", "W8A8")[4] == "diverged [1]"


def test_table_4_says_that_it_is_mislabelled_and_what_the_raw_files_have():
    text = text_of("table4")
    assert row_of(text, "PTQ of a float model with layer norm", "W8A8 + HS")[2] == "96.30, rather 96.74 *"
    assert row_of(text, "PTQ of a float model with layer norm", "W8A8 + qGELU")[2] == "96.75, rather 96.30 *"
    assert "Mislabelled in the paper" in text


@pytest.mark.parametrize("name", TABLES)
def test_every_command_is_a_sweep_whose_records_would_fill_the_cells_that_name_it(name: str):
    """The cells of the command's own grid, as records, leave no cell that asks for the same command again."""
    text = text_of(name)
    commands = re.findall(r"\[([a-z]+)\] needs a GPU at the paper's scale, command: `(.*?)`", text)
    assert commands
    for mark, command in commands:
        words = command.split()
        method, grid = (
            words[words.index("--method") + 1],
            words[words.index("--grid") + 1 : words.index("-o")],
        )
        if words[2] != "smnist":
            continue  # the other tasks' recipes are not this test's
        start = Start(name="smnist", recipe=load_recipe("smnist"))
        records = [_record_of(c) for c in cells_of(start, (method,), parse_axes(grid)) if c.method == method]
        assert records and f"[{mark}]" in text
        assert command not in text_of(name, *records)


def _record_of(cell: Any) -> dict[str, Any]:
    """What a finished cell would put on record."""
    m = cell.recipe.model
    if cell.gelu or cell.gate:
        m = m.replace(**{k: v for k, v in (("gelu", cell.gelu), ("gate", cell.gate)) if v})
    quantized = (
        {"epochs": cell.epochs or 15, "parent_epochs": 150} if cell.method == "qaft" else {"epochs": 150}
    )
    names = ("layers", "H", "P", "norm", "norm_bias", "gelu", "gate")
    extra = quantized | {"spec": cell.spec or "float", "model": {n: getattr(m, n) for n in names}}
    spec = "float" if cell.spec is None else cell.spec
    return line(method=cell.method, seed=cell.seed, spec=spec, extra=extra)


def test_commands_have_the_settings_of_the_paper_where_a_recipe_has_others():
    text = text_of("table1")
    assert "train.epochs=150 train.ssm_lr=0.004 train.lr=0.016 train.warmup_epochs=1" in text
    sources = Sources([], {}, ("pathfinder", "retrieval"))
    text = render("table1", sources)
    assert (
        "train.ssm_lr=0.0004 train.lr=0.002 seed" in text
        and "train.ssm_lr=0.00075 train.lr=0.0015 seed" in text
    )


def test_a_task_without_a_recipe_says_so_and_a_small_one_is_pointed_to():
    text = text_of("table1")
    assert "ListOps: this version of qs5 has no recipe `listops`." in text
    assert "With `text-small` in place of `text` it runs on two cores." in text


def test_every_section_of_a_table_has_its_rows():
    paper = load_paper()
    counts = {name: (len(s), {len(x.rows) for x in s}) for name in TABLES for s in [sections_of(name, paper)]}
    assert counts == {
        "table1": (6, {9}), "table2": (6, {18}), "table3": (3, {12}), "table4": (1, {6}), "table5": (4, {7})
    }  # fmt: skip
