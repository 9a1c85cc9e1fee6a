import collections
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import originals

from qs5 import tasks
from qs5.tasks import DataError, text
from qs5.tasks.places import find
from qs5.tasks.task import PAPER

REAL_DATA = os.environ.get("QS5_DATA")
real = pytest.mark.skipif(
    find(["imdb_train.jsonl.gz", "imdb/imdb_train.jsonl.gz", "aclImdb"], [Path(REAL_DATA or "/nowhere")])
    is None,
    reason="needs IMDB in $QS5_DATA",
)


def load(base: Path, **options: Any) -> tasks.Task:
    return tasks.load("text", data_dir=str(base), **{"length": 40, "download": False, **options})


@pytest.mark.parametrize("put", [originals.imdb_folder, originals.imdb_lines])
def test_reviews_become_padded_tokens(put, cache: Path, tmp_path: Path):
    put(tmp_path)
    task = load(tmp_path)
    assert (task.length, task.d_in, task.d_out, task.classes) == (40, 135, 2, ("negative", "positive"))
    assert [len(part) for part in task.splits.values()] == [36, 4, 2]
    assert [np.bincount(part.y).tolist() for part in task.splits.values()] == [[18, 18], [2, 2], [1, 1]]
    tokens = task.channels
    assert tokens is not None and tokens[:3] == ("<pad>", "<unk>", "<eos>")
    counted = collections.Counter("".join(r for (s, _, _), r in originals.REVIEWS.items() if s == "train"))
    assert (
        set(tokens[3:]) == {c for c, n in counted.items() if n >= 15} and "é" in tokens and "z" not in tokens
    )
    bad, long = ([tokens[i] for i in task.test.x[n, :, 0]] for n in (0, 1))
    assert bad == ["b", "<unk>", "d", " ", "<unk>", "<eos>", *["<pad>"] * 34]  # a and z are too rare
    assert long == ["<unk>"] * 39 + ["<eos>"]
    assert np.asarray(task.test.lengths).tolist() == [6, 40]


def test_all_sources_give_the_same_task(server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "lines" / "imdb").mkdir(parents=True)
    originals.imdb_folder(tmp_path / "folder")
    originals.imdb_lines(tmp_path / "lines" / "imdb")
    server.files[text.ARCHIVE] = originals.imdb_archive()
    monkeypatch.setattr(text, "ARCHIVE_MD5", hashlib.md5(server.files[text.ARCHIVE]).hexdigest())
    fetched = tasks.load("text", length=40, base_url=server.url)
    again = tasks.load("text", length=40, download=False)  # from what was written beside the archive
    assert server.requests == [text.ARCHIVE]
    assert sorted(path.name for path in (cache / "imdb").iterdir()) == [
        text.ARCHIVE,
        "imdb_test.jsonl.gz",
        "imdb_train.jsonl.gz",
    ]
    found = [load(tmp_path / "folder"), load(tmp_path / "lines"), fetched, again]
    assert len({task.identity for task in found}) == 1


def test_selection_on_the_test_split_trains_on_everything(cache: Path, tmp_path: Path):
    originals.imdb_lines(tmp_path)
    task = load(tmp_path, selection="test")
    assert len(task.train) == 40 and task.validation is task.test and task.selection == PAPER


def test_what_is_missing_is_named(cache: Path, tmp_path: Path):
    with pytest.raises(
        DataError, match=r"text: expected the folder aclImdb, .*jsonl\.gz.*download is switched off"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: expected a JSON object"),
        (
            '{"id": 1, "label": 2, "text": "a"}',
            r"line 2: expected an object with id .* got '{\"id\": 1, \"label\": 2",
        ),
        ('{"id": 1, "label": 1}', "line 2: expected an object with id"),
        ("[]", "line 2: expected an object with id"),
        ('{"id": 1, "label": 1, "text": ""}', "expected a text in every review, got none in train 1"),
        ("", "expected negative and positive reviews in train, got 1 reviews"),
    ],
)
def test_malformed_lines_are_refused(line: str, message: str, cache: Path, tmp_path: Path):
    (tmp_path / "imdb_train.jsonl").write_text('{"id": 0, "label": 0, "text": "a"}\n' + line)
    (tmp_path / "imdb_test.jsonl").write_text('{"id": 0, "label": 0, "text": "a"}')
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_damaged_files_are_refused(cache: Path, tmp_path: Path):
    originals.imdb_lines(tmp_path)
    whole = (tmp_path / "imdb_train.jsonl.gz").read_bytes()
    (tmp_path / "imdb_train.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"imdb_train\.jsonl\.gz: expected a complete UTF-8 file"):
        load(tmp_path)
    (tmp_path / "imdb_train.jsonl.gz").unlink()
    (tmp_path / text.ARCHIVE).write_bytes(originals.imdb_archive()[:-100])
    with pytest.raises(DataError, match="expected a complete tar archive"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "text: expected a length of at least 2 steps, got 1"),
        ({"selection": "train"}, "text: expected selection to be validation or test, got 'train'"),
        ({"width": 4}, "text: expected at most 4 tokens, got a vocabulary of"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str, cache: Path, tmp_path: Path):
    originals.imdb_lines(tmp_path)
    with pytest.raises(DataError, match=message):
        load(tmp_path, **options)


@pytest.mark.slow
@real
def test_the_real_reviews(cache: Path):
    """Counts and mean lengths that are published for the data set."""
    reviews = text.read_reviews(REAL_DATA, download=False)
    for split, mean in (("train", 1325.06964), ("test", 1293.7924)):
        found = reviews[split]
        assert np.bincount([review.label for review in found]).tolist() == [12_500, 12_500]
        assert [review.id for review in found] == [*range(12_500), *range(12_500)]
        assert np.mean([len(review.text) for review in found]) == pytest.approx(mean, abs=1e-9)
    # The official code hard-codes 135; in these files one character fewer occurs 15 times.
    assert len(text.vocabulary_of([r.text for r in reviews["train"]], length=4096).tokens) == 134
