"""The tutorials of README.md and docs/keyword.md, command by command, in an empty folder."""

import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest


def commands(page: str, name: str) -> list[str]:
    """The commands between a tutorial's marks, without comments."""
    block = page.split(f"<!-- {name} -->")[1].split("<!-- end -->")[0]
    return [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]


def follow(lines: list[str], *, repository: Path, folder: Path) -> None:
    """Run them one after the other; each has to succeed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in lines:
        done = subprocess.run(
            command.replace("PATH/TO/qs5", str(repository)),
            shell=True,
            cwd=folder,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def write_words(folder: Path) -> None:
    """Two words, twenty recordings of each: a low and a high tone of 0.2 s and more, in noise."""
    random = np.random.default_rng(0)
    for word, pitch in (("low", 300.0), ("high", 900.0)):
        (folder / word).mkdir(parents=True)
        for k in range(20):
            t = np.arange(1600 + 40 * k) / 8000
            sound = 4000 * np.sin(2 * np.pi * pitch * (1 + 0.01 * k) * t) + random.normal(0, 100, len(t))
            with wave.open(str(folder / word / f"{k:02}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes(np.rint(sound).astype("<i2").tobytes())


needs_cc = pytest.mark.skipif(not (shutil.which("cc") and shutil.which("make")), reason="needs cc and make")


@pytest.mark.slow
@needs_cc
def test_the_tutorial_runs_and_its_last_command_finds_no_difference(repository: Path, tmp_path: Path) -> None:
    found = commands((repository / "README.md").read_text(), "tutorial")
    assert found[-1].startswith("cmp ") and len(found) == 10
    follow(found, repository=repository, folder=tmp_path)
    lines = (tmp_path / "got.txt").read_text().splitlines()
    assert len(lines) == 300 and {line.split("\t")[0] for line in lines} == {"circle", "shake", "tap"}


@pytest.mark.slow
@needs_cc
def test_from_recordings_to_c(repository: Path, tmp_path: Path) -> None:
    """Of each word's twenty files numbers 0 and 10 are the test: two low ones, two high ones."""
    write_words(tmp_path / "recordings")
    found = commands((repository / "docs" / "keyword.md").read_text(), "keyword")
    assert found[-1].startswith("cmp ") and len(found) == 12
    follow(found, repository=repository, folder=tmp_path)
    lines = (tmp_path / "got.txt").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in lines) == ["high", "high", "low", "low"]
