"""Records as results: old and new ones, several seeds."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from qs5.errors import UserError
from qs5.reports.results import grouped, read_results, result_of

MODEL = {"layers": 4, "H": 96, "P": 128, "norm": "batch", "gelu": "gelu", "gate": "sigmoid"}


def line(**changes: Any) -> dict[str, Any]:
    """A record as a sweep leaves it."""
    extra = {"spec": "W8A8", "model": MODEL, "epochs": 12, "length": 784, "recipe": "smnist"}
    fixed: dict[str, Any] = {
        "task": "smnist", "method": "ptq", "spec": "W8A8 (sequential)", "seed": 0, "split": "test",
        "metric": "accuracy", "value": 0.9, "commit": "abc", "command": "qs5 sweep", "extra": extra,
    }  # fmt: skip
    return fixed | changes | {"extra": extra | changes.get("extra", {})}


def test_only_test_results_are_read_from_all_files_below_a_folder(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a.jsonl").write_text(
        json.dumps(line()) + "\n\n" + json.dumps(line(split="validation")) + "\n"
    )
    (tmp_path / "b" / "c.jsonl").write_text(json.dumps(line(seed=5)) + "\n")
    assert [r.seed for r in read_results(tmp_path)] == [0, 5]
    assert read_results(tmp_path / "none") == []


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str):
    (tmp_path / "a.jsonl").write_text(json.dumps(line()) + "\n" + text + "\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: expected"):
        read_results(tmp_path)


def test_spec_way_and_scale():
    r = result_of(line(extra={"spec": "W4A8,schedule=parallel,range_rule=aqt"}), {})
    assert (r.spec, r.way, dict(r.changes)) == (
        "W4A8",
        "paper",
        {"schedule": "parallel", "range_rule": "aqt"},
    )
    assert r.scale == "smnist, 4 layers, H=96, P=128, batch norm, length 784, 12 epochs"
    assert result_of(line(spec="float", method="fp", extra={"spec": "float"}), {}).way == "float"
    tuned = result_of(line(method="qaft", extra={"epochs": 1, "parent_epochs": 12}), {})
    assert tuned.scale.endswith("1 epoch after 12 in float")


def test_an_old_record_borrows_from_the_run_it_started_from():
    runs = {"smnist-float": {"recipe": {"model": MODEL, "train": {"epochs": 12}}}}
    old = line(command="smnist_table.py run --method ptq")
    old["extra"] = {"spec": "W8A8,schedule=parallel,range_rule=aqt", "parent": "smnist-float"}
    r = result_of(old, runs)
    assert (r.epochs, r.model["H"], r.model["gelu"], r.model["gate"]) == (12, 96, "qgelu", "hard_sigmoid")
    assert result_of(old | {"extra": {"spec": "W8A8"}}, {}).scale == "scale not recorded"


def test_groups_differ_in_more_than_the_seed_and_the_later_run_of_a_seed_counts():
    records = [
        line(value=0.5), line(value=0.6), line(seed=1, value=0.8), line(extra={"epochs": 20}),
        line(extra={"spec": "W8A8,state=8"}),
    ]  # fmt: skip
    groups = grouped(result_of(r, {}) for r in records)
    assert [len(g.results) for g in groups] == [2, 1, 1]
    assert groups[0].mean == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.5,), "50.00"),
        ((0.5, 0.7), "60.00 (50.00 to 70.00)"),
        ((0.5, math.nan, 0.7), "60.00 (50.00 to 70.00), 1 diverged"),
        ((math.nan, 0.5), "50.00, 1 diverged"),
        ((math.nan, math.nan), "diverged"),
    ],
)
def test_what_diverged_counts_as_a_run_and_not_in_the_mean(values: tuple[float, ...], text: str):
    (group,) = grouped(result_of(line(seed=n, value=value), {}) for n, value in enumerate(values))
    assert group.percent == text
