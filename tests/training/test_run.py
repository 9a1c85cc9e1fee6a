"""The folder of a run: what is written is read, another run's folder is not touched."""

import dataclasses
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import assert_same_bits, small_model, small_recipe, small_task

from qs5.quantization.spec import spec_of, to_json as spec_to_json
from qs5.training import record, run
from qs5.training.methods import judge, train
from qs5.training.run import RunError, RunInfo


@pytest.fixture(scope="module")
def info() -> RunInfo:
    task = small_task()
    return run.info_of(run.complete(small_recipe(), task), task)


def test_what_is_written_is_read(info: RunInfo, tmp_path: Path):
    full = dataclasses.replace(
        info, method="qat", spec={"name": "W8A8", "a": 16}, plan={"grids": [1, 2]}, parent="runs/float"
    )
    model = small_model(d_in=1, d_out=3, dropout=0.1)
    run.write_run(tmp_path / "a", full, model)
    assert run.read_run(tmp_path / "a") == full
    stored = run.read_model(tmp_path / "a")
    assert_same_bits(stored.model, model)
    # The model file alone says as much as the folder.
    assert run.from_json(stored.info, source="model") == full


def test_the_description_names_the_data(info: RunInfo):
    task = small_task()
    assert info.data == task.identity
    assert info.encoding == {"scale": [0.5], "offset": [0.25]}
    assert info.classes == ("a", "b", "c")
    assert (info.method, info.spec, info.parent) == ("fp", None, None)


def test_sizes_and_regression_head_come_from_the_data():
    recipe = dataclasses.replace(small_recipe(), model=small_model().config)
    assert (recipe.model.d_in, recipe.model.d_out) == (3, 4)
    model = run.complete(recipe, small_task()).model
    assert (model.d_in, model.d_out, model.head) == (1, 3, "classification")
    targets = np.zeros((26, 12, 2), np.float32)
    task = small_task()
    splits = {
        name: dataclasses.replace(split, y=targets[: len(split)]) for name, split in task.splits.items()
    }
    task = small_task(**splits, classes=None, objective="regression", metric="rmse")
    model = run.complete(recipe, task).model
    assert (model.d_in, model.d_out, model.head) == (1, 2, "regression")


def refused(folder: Path) -> str:
    with pytest.raises(RunError) as caught:
        run.read_run(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    assert "expected a run (a folder with run.json), got none" in refused(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": "qs5-run/9"}, "expected format qs5-run/1, got 'qs5-run/9'"),
        ({"recipe": None}, "expected a recipe, got keys "),
        ({"notes": "mine"}, "(unknown: notes)"),
        ({"format": None}, "expected format qs5-run/1, got None"),
    ],
)
def test_another_description_is_refused(
    changes: dict[str, Any], sentence: str, info: RunInfo, tmp_path: Path
):
    table = {k: v for k, v in (run.to_json(info) | changes).items() if k not in changes or v is not None}
    (tmp_path / "run.json").write_text(json.dumps(table))
    assert sentence in refused(tmp_path)


@pytest.mark.parametrize("text", ["", '{"format": "qs5', "[1, 2]"])
def test_a_damaged_description_is_refused(text: str, tmp_path: Path):
    (tmp_path / "run.json").write_text(text)
    refused(tmp_path)


def test_only_the_same_run_is_continued(info: RunInfo, tmp_path: Path):
    assert run.check_resumable(tmp_path, info) is False
    run.write_run(tmp_path, info)
    assert run.check_resumable(tmp_path, info) is True
    # Calibrated grids are a result of a run, not a part of its identity.
    assert run.check_resumable(tmp_path, dataclasses.replace(info, plan={"grids": []})) is True


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({"recipe": run.complete(small_recipe(seed=1), small_task())}, "recipe"),
        ({"recipe": run.complete(small_recipe(lr=0.5), small_task()), "method": "qat"}, "method, recipe"),
        ({"data": "0" * 64}, "data"),
        ({"spec": {"name": "W8A8"}, "parent": "runs/a"}, "parent, spec"),
    ],
)
def test_another_run_is_refused_and_its_folder_left_alone(
    changes: dict[str, Any], different: str, info: RunInfo, tmp_path: Path
):
    run.write_run(tmp_path, info)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(RunError, match=rf"holds another run \(different {different}\); choose another"):
        run.check_resumable(tmp_path, dataclasses.replace(info, **changes))
    assert (tmp_path / "run.json").read_bytes() == before


def test_training_refuses_the_folder_of_another_recipe(info: RunInfo, tmp_path: Path):
    run.write_run(tmp_path, info)
    with pytest.raises(RunError, match="holds another run"):
        train(small_recipe(seed=1), small_task(), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_recipe_that_cannot_run_leaves_no_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one batch of 27"):
        train(small_recipe(batch_size=27), small_task(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_judging_gives_a_record_of_one_split(info: RunInfo):
    task, model = small_task(), small_model(d_in=1, d_out=3, dropout=0.1)
    got = judge(model, task, info=info)
    logits = np.asarray(model(0.5 * task.test.x + 0.25))  # type: ignore[arg-type]
    assert got.value == np.mean(logits.argmax(axis=1) == task.test.y)
    assert (got.split, got.n, got.metric, got.epoch) == ("test", 8, "accuracy", None)
    assert (got.method, got.spec, got.seed, got.data) == ("fp", "float", 0, task.identity)
    assert got.selection == "best validation metric"
    assert judge(model, task, info=info, split="validation").n == 10


def record_of(epoch: int | None, value: float = 0.5) -> record.RunRecord:
    return record.RunRecord(
        task="small", data="0", method="fp", spec="float", seed=0, split="validation", metric="accuracy",
        value=value, loss=1.0, n=10, selection="none", seconds=0.1, epoch=epoch,
    )  # fmt: skip


def test_records_are_lines_that_are_added(tmp_path: Path):
    path = tmp_path / "run" / "records.jsonl"
    assert record.read(path) == []
    for epoch in (1, 2):
        record.append(path, record_of(epoch))
    assert len(path.read_text().splitlines()) == 2
    first, second = record.read(path)
    assert (first["epoch"], second["epoch"], first["value"]) == (1, 2, 0.5)
    assert first.keys() == {field.name for field in dataclasses.fields(record.RunRecord)}
    assert first["machine"]
    assert first["commit"]
    # Python with NumPy and JAX, at least, and less than the machine has.
    assert 50 < first["peak_mib"] < 2**24


def test_a_run_goes_on_over_a_record_that_a_kill_cut_off(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    for epoch in (1, 2, 3):
        record.append(path, record_of(epoch))
    path.write_bytes(path.read_bytes()[:-100])
    assert [r["epoch"] for r in record.read(path)] == [1, 2]
    record.drop_epochs(path, first=3)
    record.append(path, record_of(3))
    assert [r["epoch"] for r in record.read(path)] == [1, 2, 3]
    path.write_bytes(path.read_bytes()[:-100])
    record.drop_epochs(path, first=2)
    assert [r["epoch"] for r in record.read(path)] == [1]


def test_epochs_done_again_replace_their_records_and_no_others(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    for epoch in (1, 2, None, 3):
        record.append(path, record_of(epoch))
    record.drop_epochs(path, first=4)
    assert [r["epoch"] for r in record.read(path)] == [1, 2, None, 3]
    record.drop_epochs(path, first=2)
    assert [r["epoch"] for r in record.read(path)] == [1, None]
    record.drop_epochs(tmp_path / "none.jsonl", first=1)
    assert not (tmp_path / "none.jsonl").exists()


def test_without_git_the_record_names_the_version(monkeypatch: pytest.MonkeyPatch):
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(record.subprocess, "run", missing)
    monkeypatch.setattr(record.importlib.metadata, "version", lambda name: f"9.9 of {name}")
    assert record.commit.__wrapped__() == "version 9.9 of qs5"


def test_a_run_of_an_earlier_version_that_knew_fewer_fields_of_a_spec_can_be_continued(
    info: RunInfo, tmp_path: Path
):
    full = spec_to_json(spec_of("W8A8,schedule=parallel"))
    earlier = {k: v for k, v in full.items() if k != "quantized_norm"}
    run.write_run(tmp_path, dataclasses.replace(info, method="qaft", spec=earlier))
    assert run.check_resumable(tmp_path, dataclasses.replace(info, method="qaft", spec=full))
    other = spec_to_json(spec_of("W8A8,schedule=parallel,quantized_norm=false"))
    with pytest.raises(RunError, match="different spec"):
        run.check_resumable(tmp_path, dataclasses.replace(info, method="qaft", spec=other))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("benchmarks.mackey_glass", "python -m benchmarks.mackey_glass run"),
        ("qs5.__main__", "python -m qs5 run"),
        (None, "qs5 run"),
    ],
)
def test_a_record_says_how_to_call_the_program_again(
    module: str | None, said: str, monkeypatch: pytest.MonkeyPatch
):
    main = types.ModuleType("__main__")
    main.__spec__ = None if module is None else importlib.machinery.ModuleSpec(module, None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["/some/where/qs5", "run"])
    assert record.command_line() == said
