from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import originals

from qs5 import tasks
from qs5.tasks import DataError
from qs5.tasks.batches import batches
from qs5.tasks.task import PAPER


def load(base: Path, **options: Any) -> tasks.Task:
    return tasks.load("retrieval", data_dir=str(base), **{"length": 14, **options})


def test_files_become_pairs_of_padded_tokens(tmp_path: Path, cache: Path):
    originals.aan_files(tmp_path / "tsv_data")
    task = load(tmp_path)
    assert (task.name, task.length, task.d_in, task.d_out) == ("retrieval", 14, 98, 2)
    assert [len(part) for part in task.splits.values()] == [6, 1, 1]
    tokens = task.channels
    assert tokens is not None and len(tokens) == 98 and tokens[3] == " " and tokens[-1] == "~"
    first, second = ("".join(tokens[i] for i in task.test.x[0, side, :, 0]) for side in (0, 1))
    assert first == "b'~~'<eos>" + 8 * "<pad>"
    assert second == "b'0123456789a<eos>"  # cut: 13 characters and <eos>
    assert np.asarray(task.test.lengths).tolist() == [[6, 14]]
    escaped = "".join(tokens[i] for i in task.validation.x[0, 0, :9, 0])
    assert escaped == "b'a\\nb'<eos><pad>"
    assert task.train.y.tolist() == [1, 0] * 3
    (batch,) = batches(task.train.take(np.array([0, 1])), order=None, batch_size=2, drop_last=True)
    assert ["".join(tokens[i] for i in row[:3, 0]) for row in batch.x] == ["b'o", "b'x", "b'a", 'b"i']
    chosen = load(tmp_path, selection="test")
    assert chosen.validation is chosen.test and chosen.selection == PAPER


def test_characters_outside_the_vocabulary_are_unknown(tmp_path: Path, cache: Path):
    originals.aan_files(tmp_path)
    (tmp_path / "new_aan_pairs.test.tsv").write_text("0\t1\t2\té\ta\n", encoding="utf-8")
    assert load(tmp_path).test.x[0, 0, :3, 0].tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected pairs of texts, got an empty file"),
        (b"1.0\t1\t2\ta\n", "line 1: expected label 0 or 1, two numbers and two texts .* got 4 fields"),
        (b"1\t1\t2\ta\tb\n2\t1\t2\ta\tb\n", "line 2: expected label 0 or 1"),
        (b"1\t1\t2\t\tb\n", "line 1: expected label 0 or 1, two numbers and two texts"),
        (b"1\t1\t2\t\xff\tb\n", "expected UTF-8"),
    ],
)
def test_malformed_files_are_refused(content: bytes, message: str, tmp_path: Path, cache: Path):
    originals.aan_files(tmp_path)
    (tmp_path / "new_aan_pairs.eval.tsv").write_bytes(content)
    with pytest.raises(DataError, match=rf"new_aan_pairs\.eval\.tsv.*{message}"):
        load(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path, cache: Path):
    with pytest.raises(DataError, match=r"new_aan_pairs\.train\.tsv.*tsv_data/ out of .*lra_release\.gz"):
        load(tmp_path)
    originals.aan_files(tmp_path)
    (tmp_path / "new_aan_pairs.test.tsv").unlink()
    with pytest.raises(DataError, match=r"expected a readable file, got .*new_aan_pairs\.test\.tsv"):
        load(tmp_path)
    for options in ({"length": 1}, {"selection": "best"}):
        with pytest.raises(DataError, match="retrieval: expected"):
            load(tmp_path, **options)
