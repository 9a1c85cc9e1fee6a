"""Settings and fixtures that every test sees.

JAX reads its settings from the environment when it is imported, so they are put there: this file need not
import JAX, and the command lines and interpreters that tests start inherit the settings.
"""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# A default only: `JAX_PLATFORMS=cuda make test` runs the tests on a GPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# (B, H) + (H,) must be written out as a broadcast; a silent one is how an axis gets mixed up with another.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

# Most of what tests wait for is XLA's compiler. Without LLVM's optimizations, and with the older emitters of 0.10 (a
# later XLA ends at a flag that it does not know), it takes half the time.
QUICK_XLA = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    QUICK_XLA += " --xla_cpu_use_fusion_emitters=false"

# No deadline: the first example of a test pays for compilation. In CI the examples are the same in every run.
hypothesis.settings.register_profile("qs5", deadline=None, max_examples=50, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("qs5")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick-xla", action="store_true", help="have XLA compile quickly for a CPU, not optimize"
    )


def pytest_configure(config: pytest.Config) -> None:
    flags = os.environ.get("XLA_FLAGS", "")  # a worker inherits them from the process that started it
    on_cpu = os.environ["JAX_PLATFORMS"] == "cpu"
    if config.getoption("quick_xla") and on_cpu and QUICK_XLA not in flags:
        os.environ["XLA_FLAGS"] = f"{QUICK_XLA} {flags}"


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator in the same state at the start of every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]


RunPython = Callable[..., str]


@pytest.fixture
def run_python(repository: Path) -> RunPython:
    """A function: runs `code` in a fresh interpreter that cannot import `without`, returns its output."""

    def run(code: str, *, without: tuple[str, ...] = (), timeout: float = 120.0) -> str:
        # None in sys.modules makes an import of that name fail at once.
        blocked = "".join(f"import sys; sys.modules[{name!r}] = None\n" for name in without)
        process = subprocess.run(
            [sys.executable, "-c", blocked + code],
            cwd=repository,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run
