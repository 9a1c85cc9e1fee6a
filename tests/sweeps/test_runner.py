"""Cells in processes: each once, parents first, so many at a time. The processes here train nothing."""

import json
import math
import sys
from pathlib import Path

import pytest
from tests.sweeps.cells import cells, failing, finish, ran, worker

from qs5 import machine
from qs5.cli import sweep
from qs5.sweeps.cell import Cell, failure_of, state_of
from qs5.sweeps.runner import PROCESSORS_VARIABLE, Listener, run_cells
from qs5.sweeps.summary import header_of, rows_of, write_records


def run(found: tuple[Cell, ...], folder: Path, *, jobs: int = 2, fail: str = "", retry: bool = False) -> None:
    """Run all cells; those whose name starts with `fail` fail."""

    def command(cell: Cell) -> list[str]:
        return failing("qs5: no luck") if fail and cell.name.startswith(fail) else worker(folder, cell)

    run_cells(found, folder, command=command, jobs=jobs, retry=retry)


def test_all_cells_run_once_and_after_their_parents(tmp_path: Path):
    found = cells("spec=W8A8,W4A8", "seed=0,1", methods=("fp", "ptq"))
    run(found, tmp_path)
    times = ran(tmp_path)
    assert set(times) == {c.name for c in found}
    for cell in found:
        if isinstance(cell.parent, Cell):
            assert times[cell.name][0] > times[cell.parent.name][1]
    most = max(sum(b <= begin < e for b, e in times.values()) for begin, _ in times.values())
    assert most == 2
    assert {r[-1] for r in rows_of(found, tmp_path)} == {"done"}


def test_processes_at_once_share_the_processors(tmp_path: Path):
    """Two at a time, each in its half, and a third takes over a half that is free again."""
    code = f"import os, time; print(os.environ['{PROCESSORS_VARIABLE}']); time.sleep(0.3)"
    found = cells("seed=0,1,2", methods=("fp",))
    run_cells(found, tmp_path, command=lambda _: [sys.executable, "-S", "-c", code], jobs=2)
    logs = [(tmp_path / c.name / "log.txt").read_text().strip() for c in found]
    first, second = (",".join(map(str, share)) for share in machine.shares(2))
    assert sorted(logs[:2]) == sorted((first, second)) and logs[2] in (first, second)


def test_a_cell_keeps_to_its_processors(run_python, monkeypatch: pytest.MonkeyPatch):
    one = machine.shares(10**6)[0]
    monkeypatch.setenv(PROCESSORS_VARIABLE, str(one[0]))
    code = "import os; from qs5.sweeps.runner import join_sweep; join_sweep(); print(os.sched_getaffinity(0))"
    assert run_python(code).strip() == f"{{{one[0]}}}"


@pytest.mark.parametrize(
    ("parts", "expected"), [(1, [(0, 1, 4)]), (2, [(0,), (1, 4)]), (5, [(0,), (1,), (4,), (0,), (1,)])]
)
def test_shares(parts: int, expected: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 0, 1})
    assert machine.shares(parts) == expected


def test_finished_cells_are_not_run_again(tmp_path: Path):
    found = cells("spec=W8A8,W4A8")
    for cell in found[:2]:
        finish(tmp_path, cell)
    run(found, tmp_path)
    assert set(ran(tmp_path)) == {found[2].name}
    run(found, tmp_path)
    assert set(ran(tmp_path)) == {found[2].name}


def test_a_cell_whose_last_record_was_cut_off_is_run_again(tmp_path: Path):
    found = cells("spec=W8A8", methods=("fp",))
    finish(tmp_path, found[0])
    path = tmp_path / found[0].name / "records.jsonl"
    epoch = json.dumps({**json.loads(path.read_text()), "split": "validation", "epoch": 1}) + "\n"
    path.write_text(epoch + path.read_text()[:-50])
    assert state_of(tmp_path / found[0].name) == "waiting" and rows_of(found, tmp_path)[0][-1] == "1 to run"
    seen = []
    run_cells(
        found,
        tmp_path,
        command=lambda c: worker(tmp_path, c),
        jobs=1,
        listener=Listener(progress=lambda rows: seen.extend(row.epoch for row in rows)),
    )
    assert set(ran(tmp_path)) == {found[0].name} and seen[0] == 1


def test_the_verb_loads_all_data_that_its_cells_will_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loaded: list[str] = []
    monkeypatch.setattr(sweep.common, "load_task", lambda *_: loaded.append("all"))
    monkeypatch.setattr(sweep.common, "load_for_judging", lambda *_: loaded.append("embedded"))
    monkeypatch.setattr(sweep, "run_cells", lambda *_, **__: None)
    argv = ["smnist", "--method", "qat,ptq", "--grid", "spec=W8A8", "-o", str(tmp_path)]
    assert sweep.run(argv) == 0
    assert sorted(loaded) == ["all", "embedded"]


def test_a_failed_cell_is_reported_and_tried_again_only_when_asked(tmp_path: Path):
    found = cells("spec=W8A8,W4A8")
    run(found, tmp_path, fail="ptq-W4A8")
    assert failure_of(tmp_path / found[2].name) == {"exit_code": 1, "reason": "no luck"}
    assert rows_of(found, tmp_path)[-1][-1] == "1 failed: no luck"
    run(found, tmp_path)
    assert found[2].name not in ran(tmp_path)
    run(found, tmp_path, retry=True)
    assert state_of(tmp_path / found[2].name) == "done" and failure_of(tmp_path / found[2].name) is None


def test_cells_of_a_failed_parent_are_not_run(tmp_path: Path):
    found = cells("spec=W8A8")
    run(found, tmp_path, fail="fp")
    assert ran(tmp_path) == {}
    assert [r[-1] for r in rows_of(found, tmp_path)] == ["1 failed: no luck", "its float run failed"]


def test_an_interrupted_sweep_marks_nothing_as_failed_and_leaves_nothing_running(tmp_path: Path):
    found = cells("seed=0,1", methods=("fp",))

    def interrupt(_: Cell) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(
            found,
            tmp_path,
            command=lambda c: worker(tmp_path, c),
            jobs=1,
            listener=Listener(started=interrupt),
        )
    assert ran(tmp_path) == {}
    assert {state_of(tmp_path / c.name) for c in found} == {"waiting"}


def test_a_cell_that_diverged_is_done_and_counts_in_no_mean(tmp_path: Path):
    found = cells("spec=W8A8", "seed=0,1,2")
    for cell, value in zip([c for c in found if c.method == "ptq"], (0.5, math.nan, 0.7), strict=True):
        finish(tmp_path, cell, value)
    assert rows_of(found, tmp_path)[-1][3:] == ("3/3", "60.00 %", "50.00 %", "70.00 %", "done, 1 diverged")


def test_seeds_share_a_row_and_records_are_in_the_order_of_the_grid(tmp_path: Path):
    found = cells("spec=W8A8,W4A8", "seed=0,1")
    quantized = [c for c in found if c.method == "ptq"]
    for cell, value in zip(quantized[:3], (0.5, 0.7, 0.25), strict=True):
        finish(tmp_path, cell, value)
    assert header_of(found)[:3] == ("method", "spec", "bits")
    rows = {row[1]: row[3:] for row in rows_of(found, tmp_path)}
    assert rows["W8A8"] == ("2/2", "60.00 %", "50.00 %", "70.00 %", "done")
    assert rows["W4A8"] == ("1/2", "25.00 %", "25.00 %", "25.00 %", "1 to run")
    write_records(found, tmp_path, tmp_path / "records.jsonl")
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == [0.5, 0.7, 0.25]
    another = cells("spec=W2A8", "seed=0")
    write_records([c for c in another if c.method == "ptq"], tmp_path, tmp_path / "records.jsonl")
    kept = (tmp_path / "records.jsonl").read_text().splitlines()
    assert sorted(kept) == sorted(lines), "a later grid in the same folder keeps what is there"
