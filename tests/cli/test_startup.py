"""The command line answers at once. Held by what is imported, which no load changes, and by generous processor time.

Goals on an idle machine: `qs5 --help` 0.3 s, `qs5 run` on an integer model 0.5 s (`python -m benchmarks.startup`).
"""

import sys
from collections.abc import Callable

import pytest
from benchmarks.startup import COMMANDS, spent

SLACK = 3.0
"""Times the goal: two threads that share a core take nearly twice the processor time, old machines more."""
HEAVY = {"jax", "jaxlib", "equinox", "optax", "scipy", "sklearn", "rich", "tyro", "matplotlib", "PIL", "onnx"}
MOST_MODULES = {"--help": 120, "run": 350}
"""69 and 250 are loaded today (the standard library included)."""

LISTING = """
import io, sys
from qs5.cli import main
sys.stdin = io.StringIO("10\\n200\\n30\\n")
assert main({words!r}) == 0
print("MODULES", " ".join(sys.modules))
"""


def modules(run_python: Callable[..., str], words: list[str]) -> set[str]:
    last = run_python(LISTING.format(words=words)).splitlines()[-1]
    assert last.startswith("MODULES ")
    return set(last.split()[1:])


@pytest.mark.parametrize("words", [["--help"], ["run", "smnist-w8a8abar16", "-"]], ids=lambda words: words[0])
def test_what_is_imported(words: list[str], run_python: Callable[..., str]):
    loaded = modules(run_python, words)
    assert not loaded & HEAVY
    assert ("numpy" in loaded) == (words[0] == "run")
    assert len(loaded) < MOST_MODULES[words[0]]


@pytest.mark.skipif(sys.platform == "win32", reason="processor time of children is not counted there")
@pytest.mark.parametrize("name", COMMANDS)
def test_processor_time(name: str):
    command = COMMANDS[name]
    # The first one may have to write the byte code.
    assert min(spent(command).processor for _ in range(2)) < SLACK * command.goal
