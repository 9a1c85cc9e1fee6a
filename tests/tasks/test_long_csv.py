from pathlib import Path

import numpy as np
import pytest

from qs5.tasks import DataError
from qs5.tasks.long_csv import Columns, read_csv, resolve
from qs5.tasks.sequences import Sequences

LABELLED = """id,time,u,v,label
a,0,1,10,left
a,1,2,20,left
b,0,3,30,right
"""


def read(path: Path, text: str, *, delimiter: str = ",", **columns) -> Sequences:
    (path / "data.csv").write_text(text, encoding="utf-8")
    return read_csv(path / "data.csv", columns=Columns(**columns), delimiter=delimiter)


def test_labels_make_a_classification(tmp_path: Path):
    data = read(tmp_path, LABELLED)
    assert data.x.tolist() == [[[1, 10], [2, 20]], [[3, 30], [0, 0]]]
    assert data.x.dtype == np.float32
    assert data.lengths.tolist() == [2, 1]
    assert np.asarray(data.labels).tolist() == ["left", "right"]
    assert data.targets is None
    assert data.split is None
    assert data.channels == ("u", "v")
    assert data.outputs is None


def test_targets_make_a_regression(tmp_path: Path):
    data = read(tmp_path, "sequence,u,target_x,target_y\n1,5,0.5,-1\n2,6,1.5,-2\n1,7,2.5,-3\n")
    assert data.x[:, :, 0].tolist() == [[5, 7], [6, 0]]
    assert np.asarray(data.targets).tolist() == [[[0.5, -1], [2.5, -3]], [[1.5, -2], [0, 0]]]
    assert data.labels is None
    assert data.outputs == ("target_x", "target_y")


def test_rows_are_sorted_by_time_within_a_sequence(tmp_path: Path):
    data = read(tmp_path, "id,step,u,target\nb,10,1,1\na,2,2,2\nb,9,3,3\na,-1,4,4\n")
    assert data.x[:, :, 0].tolist() == [[3, 1], [4, 2]]
    assert np.asarray(data.targets)[:, :, 0].tolist() == [[3, 1], [4, 2]]


def test_rows_keep_their_order_without_time(tmp_path: Path):
    rows = "".join(f"{k % 3},{k},x\n" for k in range(60))
    data = read(tmp_path, "id,u,label\n" + rows)
    assert data.x[:, :, 0].tolist() == [list(range(k, 60, 3)) for k in range(3)]


def test_split_column(tmp_path: Path):
    data = read(tmp_path, "id,u,label,split\na,1,l,train\nb,2,r,test\n")
    assert np.asarray(data.split).tolist() == ["train", "test"]
    assert data.channels == ("u",)


def test_spaces_blank_lines_byte_order_mark_and_quotes(tmp_path: Path):
    data = read(tmp_path, '\ufeffid, u , label\n\n a ,1, "x"\na, 2 ,"x"\n\n'.replace(' "x"', "x"))
    assert data.x[:, :, 0].tolist() == [[1, 2]]
    assert np.asarray(data.labels).tolist() == ["x"]


def test_another_delimiter(tmp_path: Path):
    assert read(tmp_path, LABELLED.replace(",", ";"), delimiter=";").x.shape == (2, 2, 2)


def test_columns_can_be_renamed(tmp_path: Path):
    text = "patient,hour,u,v,outcome,part\np,1,1,9,ill,train\np,0,2,9,ill,train\nq,0,3,9,well,test\n"
    options = {"id": "patient", "time": "hour", "label": "outcome", "split": "part", "features": ("u",)}
    data = read(tmp_path, text, **options)
    assert data.x[:, :, 0].tolist() == [[2, 1], [3, 0]]
    assert data.channels == ("u",)
    assert np.asarray(data.labels).tolist() == ["ill", "well"]
    assert np.asarray(data.split).tolist() == ["train", "test"]


def test_target_columns_can_be_chosen(tmp_path: Path):
    data = read(tmp_path, "id,u,v,label\na,1,2,3\n", targets=("v",))
    assert data.channels == ("u",)  # not label: it was not chosen, and must not leak into the inputs
    assert data.outputs == ("v",)
    assert data.labels is None


def test_a_chosen_label_leaves_targets_out_of_the_inputs():
    layout = resolve(["id", "u", "label", "target_a", "step", "time"], Columns(label="label"))
    assert layout.features == ("u",)
    assert (layout.label, layout.targets, layout.time) == ("label", (), "time")
    assert resolve(["id", "u", "label", "step"], Columns(features=("u",))).time == "step"


BAD = {
    "empty": ("\n", {}, "expected a header line"),
    "no rows": ("id,u,label\n", {}, "expected at least one row below the header, got none"),
    "no id": (
        "name,u,label\n",
        {},
        "expected a column id or sequence, got name, u, label; .*option id_column",
    ),
    "no such time": ("id,u,label\n", {"time": "t"}, "expected a column t, got id, u, label; .*time_column"),
    "no target": ("id,u,v\n", {}, "expected a column label, target or target_\\*, got id, u, v"),
    "no such target": ("id,u,v\n", {"targets": ("w",)}, "expected target columns w, got no w"),
    "both": ("id,u,label,target\n", {}, "expected a label or targets, got both"),
    "both chosen": (
        "id,u,v,w\n",
        {"label": "v", "targets": ("w",)},
        "expected a label or targets, got both .v; w.",
    ),
    "twice": ("id,u,u,label\n", {}, "expected different column names, got u more than once"),
    "no features": ("id,time,label\n", {}, "expected feature columns among none"),
    "no such feature": ("id,u,label\n", {"features": ("w",)}, "expected feature columns among u, got w"),
    "feature is label": (
        "id,u,label\n",
        {"features": ("label",)},
        "expected feature columns among u, got label",
    ),
    "few cells": ("id,u,label\na,1,x\na,2\n", {}, "line 3: expected 3 cells as in the header, got 2"),
    "many cells": ("id,u,label\n\na,1,2,x\n", {}, "line 3: expected 3 cells as in the header, got 4"),
    "not a number": (
        "id,u,v,label\na,1,2,x\na,1,two,x\n",
        {},
        "line 3, column v: expected a finite number, got 'two'",
    ),
    "empty cell": ("id,u,label\na,,x\n", {}, "line 2, column u: expected a finite number, got ''"),
    "nan": ("id,u,label\na,nan,x\n", {}, "line 2, column u: expected a finite number, got 'nan'"),
    "inf target": (
        "id,u,target\na,1,-inf\n",
        {},
        "line 2, column target: expected a finite number, got '-inf'",
    ),
    "time": (
        "id,time,u,label\na,noon,1,x\n",
        {},
        "line 2, column time: expected a finite number, got 'noon'",
    ),
    "too large": ("id,u,label\na,1e300,x\n", {}, "expected finite float32 numbers in the feature columns"),
    "too large target": (
        "id,u,target\na,1,1e300\n",
        {},
        "expected finite float32 numbers in the target columns",
    ),
    "label changes": (
        "id,u,label\na,1,x\nb,1,y\na,2,y\n",
        {},
        "line 4, column label: expected 'x' as in the earlier rows .*got 'y'; a label must not change",
    ),
    "split changes": (
        "id,u,label,split\na,1,x,train\na,2,x,test\n",
        {},
        "line 3, column split: expected 'train'",
    ),
    "empty label": ("id,u,label\na,1, \n", {}, "line 2, column label: expected a value, got an empty cell"),
    "empty id": ("id,u,label\n ,1,x\n", {}, "line 2, column id: expected a value, got an empty cell"),
    "same time": (
        "id,time,u,label\na,1,1,x\nb,1,1,x\nb,2,1,x\nb,1,1,x\n",
        {},
        "column time: expected every time once in a sequence, got 1 twice in sequence b",
    ),
    "open quote": ('id,u,label\na,1,"x\n', {}, "expected CSV text in UTF-8, got unexpected end of data"),
}


@pytest.mark.parametrize(("text", "columns", "message"), BAD.values(), ids=BAD)
def test_bad_tables_are_refused(text: str, columns: dict, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text, **columns)


def test_other_encodings_are_refused(tmp_path: Path):
    (tmp_path / "data.csv").write_bytes("id,u,label\na,1,é\n".encode("latin-1"))
    with pytest.raises(DataError, match="expected CSV text in UTF-8"):
        read_csv(tmp_path / "data.csv", columns=Columns(), delimiter=",")
