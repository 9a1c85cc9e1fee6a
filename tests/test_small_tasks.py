"""Cards of the small tasks: records are collected once, and shown as they are."""

import math
from pathlib import Path
from typing import Any

import pytest
from benchmarks import small_tasks

from qs5.files import append_jsonl, read_jsonl


def _cell(seed: int, value: float, *, method: str = "fp", spec: str = "float") -> dict[str, Any]:
    return {
        "task": "text", "method": method, "spec": spec, "seed": seed, "split": "test", "metric": "accuracy",
        "value": value, "commit": "abc", "command": "python -m qs5 sweep text-small --only x",
        "extra": {"cell": f"{method}-{seed}", "model": {"layers": 2, "H": 64, "P": 64, "norm": "batch"}, "epochs": 8},
    }  # fmt: skip


def test_gathering_takes_every_test_record_once(tmp_path: Path):
    sweep, results = tmp_path / "sweep", tmp_path / "results"
    rows = [_cell(0, 0.81), _cell(1, 0.79), _cell(0, 0.7, method="ptq", spec="W8A8 (sequential)")]
    for row in [*rows, _cell(2, 0.5) | {"split": "validation"}]:
        append_jsonl(sweep / "records.jsonl", row)
    assert [small_tasks.gather(sweep, results) for _ in range(2)] == [3, 0]
    assert read_jsonl(results / "text.jsonl") == rows
    small_tasks.main(["show", "--results", str(results)])
    text = (results / "small_tasks.md").read_text()
    assert "mean **80.00**: 81.00 (seed 0), 79.00 (seed 1)." in text
    assert "| W8A8 | 88.49 | 57.39 | 70.00 (seed 0) |" in text  # the paper's PTQ and QAT beside ours
    assert "- `qs5 sweep text-small`" in text and text.count("Not run yet.") == 2


def test_a_run_that_diverged_is_collected_once_and_says_so(tmp_path: Path):
    sweep, results = tmp_path / "sweep", tmp_path / "results"
    append_jsonl(sweep / "records.jsonl", _cell(0, math.nan, method="qaft", spec="W2A8 (sequential)"))
    assert [small_tasks.gather(sweep, results) for _ in range(2)] == [1, 0]
    small_tasks.main(["show", "--results", str(results)])
    assert "| W2A8 | 51.18 | 74.21 | diverged (seed 0) |" in (results / "small_tasks.md").read_text()


def test_a_float_model_below_the_floor_is_no_evidence(tmp_path: Path):
    append_jsonl(tmp_path / "text.jsonl", _cell(0, 0.74))
    small_tasks.main(["show", "--results", str(tmp_path)])
    assert "not testable at this scale" in (tmp_path / "small_tasks.md").read_text()


@pytest.mark.parametrize(
    ("rows", "message"), [([], "run `qs5 sweep` there"), ([_cell(0, 0.5) | {"task": "digits"}], "got digits")]
)
def test_gathering_says_what_is_missing(
    rows: list[dict[str, Any]], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for row in rows:
        append_jsonl(tmp_path / "records.jsonl", row)
    with pytest.raises(SystemExit) as stop:
        small_tasks.main(["gather", str(tmp_path), "--results", str(tmp_path)])
    assert stop.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("words", [["gather"], ["show", "runs"]])
def test_only_gathering_takes_folders(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        small_tasks.main([*words, "--results", str(tmp_path)])
    assert stop.value.code == 2 and "expected `gather FOLDER...` or `show`" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
