from pathlib import Path

import pytest
from tests import originals

from qs5.tasks import DataError, checks


def test_what_is_published_is_compared(cache: Path, tmp_path: Path):
    originals.listops_files(tmp_path)
    task, rows = checks.check("listops", data_dir=str(tmp_path))
    found = {row.what: row for row in rows}
    assert (found["train: sequences"].got, found["train: sequences"].expected) == ("4", "96000")
    assert [row.what for row in rows if not row.right] == [f"{split}: sequences" for split in task.splits]
    assert found["labels, over all splits"].got == "1 1 0 0 2 2 0 0 0 1"
    assert found["lengths of train"].got == "2 to 5, median 3"
    assert found["identity"].got == task.identity


def test_the_package_data_is_as_published():
    _, rows = checks.check("smnist", parts="embedded")
    assert {row.what: row.right for row in rows}["test: sequences"]


def test_other_selection_and_other_data_have_nothing_to_be_compared_with(cache: Path, tmp_path: Path):
    originals.listops_files(tmp_path)
    _, rows = checks.check("listops", data_dir=str(tmp_path), selection="test")
    assert all(row.expected is None for row in rows)
    (tmp_path / "generated.json").write_text("{}")
    task, rows = checks.check("listops", data_dir=str(tmp_path))
    assert task.name == "listops-qs5" and all(row.right for row in rows)


def test_every_value_is_computed(cache: Path, tmp_path: Path):
    originals.listops_files(tmp_path)
    (tmp_path / "basic_test.tsv").write_text("Source\tTarget\n[MAX 1 2 ]\t1\n")
    with pytest.raises(DataError, match="expected the value 2, got 1"):
        checks.check("listops", data_dir=str(tmp_path))
