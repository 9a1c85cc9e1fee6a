"""The README's tutorial, command by command, in an empty folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def commands(readme: str) -> list[str]:
    """The commands between the tutorial's marks, without comments."""
    block = readme.split("<!-- tutorial -->")[1].split("<!-- end -->")[0]
    return [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("make")), reason="needs cc and make")
def test_the_tutorial_runs_and_its_last_command_finds_no_difference(repository: Path, tmp_path: Path) -> None:
    found = commands((repository / "README.md").read_text())
    assert found[-1].startswith("cmp ") and len(found) == 10
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in found:
        done = subprocess.run(
            command.replace("PATH/TO/qs5", str(repository)),
            shell=True,
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    lines = (tmp_path / "got.txt").read_text().splitlines()
    assert len(lines) == 300 and {line.split("\t")[0] for line in lines} == {"circle", "shake", "tap"}
