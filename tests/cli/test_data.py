"""`qs5 data`: checking and making data sets from the command line."""

from pathlib import Path

import numpy as np
import pytest
from tests import originals

from qs5 import tasks
from qs5.cli import main


def test_made_files_pass_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, small = str(tmp_path / "made"), ["--train", "20", "--validation", "4", "--test", "4"]
    assert (
        main(["data", "make", "listops", "--out", out, *small, "--min-length", "5", "--max-length", "30"])
        == 0
    )
    assert len(capsys.readouterr().out.split()) == 3
    assert main(["data", "check", "listops", "--data-dir", out, "--data", "length=32"]) == 0
    table = capsys.readouterr().out
    assert "listops-qs5" in table and "differs" not in table


def test_a_made_series_is_read_as_custom_data(tmp_path: Path):
    out = tmp_path / "mg.npz"
    assert main(["data", "make", "mackey_glass", "--out", str(out), "--tau", "1", "--form", "ahead"]) == 0
    mine, made = tasks.load("custom", path=str(out)), tasks.load("mackey_glass", tau=1, form="ahead")
    for split in made.splits:
        np.testing.assert_array_equal(mine.splits[split].x, made.splits[split].x)
        np.testing.assert_array_equal(mine.splits[split].y, made.splits[split].y)


def test_a_data_set_with_a_part_missing_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    originals.listops_files(tmp_path)
    assert main(["data", "check", "listops", "--data-dir", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "96000" in captured.out and "differs" in captured.out
    assert (
        captured.err.startswith("qs5: listops: expected what is published") and captured.err.count("\n") == 1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data"], "expected check or make first"),
        (["data", "look"], "expected check or make, got 'look'"),
        (["data", "make", "mnist"], "expected one of listops"),
        (["data", "check", "mnist"], "expected a task among"),
        (["data", "make", "listops", "--out", "x", "--max-args", "1"], "max_args of at least 2"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
