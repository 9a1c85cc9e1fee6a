import collections
import gzip
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import originals

from qs5 import tasks
from qs5.tasks import DataError, listops
from qs5.tasks.listops_make import Drawing, ListOpsOptions, draw, make
from qs5.tasks.places import find
from qs5.tasks.task import PAPER

REAL_DATA = os.environ.get("QS5_DATA")


def real(name: str) -> Path:
    """A file of the real data, or a skip with the reason."""
    found = find([name], [Path(REAL_DATA or "/nowhere")])
    if found is None:
        pytest.skip(f"needs {name} in $QS5_DATA")
    return found


def load(base: Path, **options: Any) -> tasks.Task:
    return tasks.load("listops", data_dir=str(base), **{"length": 12, **options})


# ---- the evaluator ----


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7", 7),
        ("[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]", 5),
        ("[SM 9 9 9 ]", 7),
        ("[MED 1 4 ]", 2),
        ("[MED 1 2 9 8 ]", 5),
        ("( ( ( [MIN 6 ) ( ( ( [SM 5 ) 9 ) ] ) ) ] )", 4),
    ],
)
def test_values(expression: str, value: int):
    assert listops.evaluate(expression) == value


@pytest.mark.parametrize(
    "expression", ["", "1 2", "[MAX 1", "[MAX ]", "1 ]", "[SUM 1 2 ]", "12", "[MAX 1 2 ] ]"]
)
def test_what_is_no_expression_has_no_value(expression: str):
    with pytest.raises(DataError, match=r"^expected"):
        listops.evaluate(expression)


def test_every_row_of_the_real_test_set_has_its_label():
    rows = gzip.decompress(real("listops_nangia_test_d20s.tsv.gz").read_bytes()).decode().splitlines()
    assert len(rows) == 10_000
    wrong = [row for row in rows if listops.evaluate(row.partition("\t")[2]) != int(row.partition("\t")[0])]
    assert not wrong


def test_rows_in_the_arenas_layout_that_others_made(tmp_path: Path, cache: Path):
    sample = real("listops_lra_format_sample.tsv").read_bytes()
    for name in listops.FILES.values():
        (tmp_path / name).write_bytes(sample)
    task = load(tmp_path, length=100, verify=True)
    assert task.name == "listops" and len(task.train) == 9


# ---- the loader ----


def test_files_become_padded_tokens(tmp_path: Path, cache: Path):
    originals.listops_files(tmp_path / "listops-1000")
    task = load(tmp_path, verify=True)
    assert (task.name, task.length, task.d_in, task.d_out) == ("listops", 12, 20, 10)
    assert [len(part) for part in task.splits.values()] == [4, 1, 2]
    tokens = task.channels
    assert tokens is not None and len(tokens) == 18
    first, second = ([tokens[i] for i in task.test.x[n, :, 0]] for n in (0, 1))
    assert first == ["[MAX", "2", "[MIN", "4", "7", "]", "]", "<eos>", *["<pad>"] * 4]
    assert second == ["[SM", *"1234567890", "<eos>"]  # cut: 11 tokens and <eos>
    assert task.test.y.tolist() == [4, 5] and np.asarray(task.test.lengths).tolist() == [8, 12]
    chosen = load(tmp_path, selection="test")
    assert chosen.validation is chosen.test and chosen.selection == PAPER


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"basic_val\.tsv: expected the header 'Source\\tTarget', got ''"),
        ("Target\tSource\n", "expected the header"),
        ("Source\tTarget\n", "expected expressions, got none below the header"),
        ("Source\tTarget\n1\t1\n[MAX 1 2 ]\t12\n", "line 3: expected an expression, a tab and a digit"),
        ("Source\tTarget\n1 2 3\n", "line 2: expected an expression, a tab and a digit, got '1 2 3'"),
        ("Source\tTarget\n[MUL 1 2 ]\t2\n", r"line 2: expected tokens .* got '\[MUL'"),
        ("Source\tTarget\n( )\t2\n", "line 2: expected an expression, got none"),
        ("Source\tTarget\n[MAX 1 2 ]\t1\n", "line 2: expected the value 2, got 1; the file is wrong"),
        ("Source\tTarget\n[MAX 1 2\t2\n", "line 2: expected one complete expression"),
        ("Source\tTarget\né\t2\n", "expected plain text"),
    ],
)
def test_malformed_files_are_refused(content: str, message: str, tmp_path: Path, cache: Path):
    originals.listops_files(tmp_path)
    (tmp_path / "basic_val.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load(tmp_path, verify=True)


def test_missing_files_and_bad_options_are_named(tmp_path: Path, cache: Path):
    with pytest.raises(DataError, match=r"basic_train\.tsv.*lra_release\.gz.*qs5 data make listops"):
        load(tmp_path)
    originals.listops_files(tmp_path)
    (tmp_path / "basic_test.tsv").unlink()
    with pytest.raises(
        DataError, match=r"expected a readable file, got none: .*basic_test\.tsv; put it there"
    ):
        load(tmp_path)
    for options in ({"length": 1}, {"selection": "best"}, {"width": 17}):
        with pytest.raises(DataError, match="listops: expected"):
            load(tmp_path, **options)


# ---- the generator ----

SMALL = ListOpsOptions(train=60, validation=7, test=8, min_length=20, max_length=60, seed=3)


def test_made_files_are_valid_and_say_what_they_are(tmp_path: Path, cache: Path):
    make(tmp_path / "a", SMALL)
    make(tmp_path / "b", SMALL)
    for name in listops.FILES.values():
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    task = load(tmp_path / "a", length=61, verify=True)
    assert task.name == "listops-qs5"
    assert [len(part) for part in task.splits.values()] == [60, 7, 8]
    lengths = np.concatenate([np.asarray(part.lengths) for part in task.splits.values()]) - 1
    assert lengths.min() > 20 and lengths.max() < 60
    rows = {part.x[n].tobytes() for part in task.splits.values() for n in range(len(part))}
    assert len(rows) == 75


def test_round_brackets_are_those_of_the_arena():
    """( ( ( [OP a ) b ) ] ): each argument and the end close one bracket, so that the whole is a binary tree."""
    reduced, _ = draw(random.Random(1), SMALL)
    innermost = r"((?:\( )+)\[(?:MAX|MIN|MED|SM)((?: [0-9N] \))+) \] \)"
    assert re.search(innermost, reduced)
    while found := re.search(innermost, reduced):
        assert found[1].count("(") == found[2].count(")") + 1
        reduced = reduced.replace(found[0], "N")
    assert reduced == "N"


def test_nodes_have_the_arenas_distribution():
    """Above the greatest depth 3 of 4 nodes are digits; digits and operators are even; 6 arguments on average."""
    options = ListOpsOptions(min_length=0, max_length=10_000, max_depth=4)
    rng, counts = random.Random(0), collections.Counter[str]()
    for _ in range(4_000):
        drawing = Drawing(rng, options)
        drawing.node(1)
        counts.update(drawing.words)
    digits, operators = sum(counts[d] for d in "0123456789"), sum(counts[o] for o in listops.OPERATORS)
    # E[operators] of a tree: 1/4 (1 + 6/4 + (6/4)^2), and every one of them is followed by 6 nodes on average.
    assert operators / 4_000 == pytest.approx(0.25 * (1 + 1.5 + 1.5**2), rel=0.1)
    assert (digits + operators) / 4_000 == pytest.approx(1 + 6 * operators / 4_000, rel=0.05)
    assert max(counts[d] for d in "0123456789") < 1.15 * min(counts[d] for d in "0123456789")
    assert max(counts[o] for o in listops.OPERATORS) < 1.25 * min(counts[o] for o in listops.OPERATORS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "expected counts and depth of at least 1"),
        ({"max_length": 501}, "room between min_length and max_length"),
        ({"max_depth": 2}, "expected expressions longer than 500 tokens to exist, got a longest one of 12"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        make(tmp_path, ListOpsOptions(**options))
    assert not list(tmp_path.iterdir())


def test_too_few_expressions_are_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="expected 12 different expressions, got 10"):
        make(
            tmp_path, ListOpsOptions(train=10, validation=1, test=1, min_length=0, max_length=3, max_depth=1)
        )
