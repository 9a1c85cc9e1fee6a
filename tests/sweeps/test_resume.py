"""A sweep that is killed and started again ends as one that was left alone: real training, real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support import assert_same_bits
from tests.sweeps.cells import wait_for

from qs5.model.files import load_model
from qs5.sweeps.cell import held
from qs5.training import record

SWEEP = [
    "sweep", "digits", "--method", "fp,ptq,qaft", "--grid", "spec=W4A8", "seed=0", "qaft.epochs=30",
    "model.layers=1", "model.H=8", "model.P=8", "train.epochs=30", "train.warmup_epochs=0",
]  # fmt: skip
CHANGING = {"seconds", "time", "command", "commit", "machine", "peak_mib"}


def start(folder: Path, repository: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "qs5", *SWEEP, "-o", str(folder)]
    return subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(folder: Path, repository: Path) -> str:
    process = start(folder, repository)
    text = process.communicate(timeout=900)[0].decode()
    assert process.returncode == 0, text
    return text


def epochs(folder: Path, method: str) -> int:
    """Epochs of the cell of a method that are on record."""
    try:
        return sum(len(record.read(path)) for path in folder.glob(f"{method}-*/records.jsonl"))
    except json.JSONDecodeError:
        return 0


def results(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in CHANGING} for r in record.read(path)]


@pytest.mark.slow
def test_a_sweep_killed_twice_equals_one_that_was_not(tmp_path: Path, repository: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(whole, repository)
    for method in ("fp", "qaft"):  # in the middle of each training
        process = start(killed, repository)
        wait_for(lambda method=method: epochs(killed, method) >= 1)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        (folder,) = killed.glob(f"{method}-*")
        with held(folder):  # the cell's own process has ended as well, or this would wait for its end
            assert not any(r["split"] == "test" for r in record.read(folder / "records.jsonl"))
    finish(killed, repository)

    names = sorted(path.name for path in whole.iterdir() if path.is_dir())
    assert names == sorted(path.name for path in killed.iterdir() if path.is_dir()) and len(names) == 3
    for name in names:
        mine, theirs = (load_model(path / name / "model.safetensors") for path in (killed, whole))
        assert_same_bits(mine.model, theirs.model)
        assert results(killed / name / "records.jsonl") == results(whole / name / "records.jsonl")
    assert results(killed / "records.jsonl") == results(whole / "records.jsonl")

    before = {path: path.stat().st_mtime_ns for path in killed.glob("*/*") if path.is_file()}
    assert "3 of them finished before" in finish(killed, repository)
    assert before == {path: path.stat().st_mtime_ns for path in killed.glob("*/*") if path.is_file()}
