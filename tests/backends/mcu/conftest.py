"""Each test that takes `core` runs on all of them."""

from pathlib import Path

import pytest
from tests.mcu import require

from qs5.backends.mcu import CORES, Core


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> Core:
    """Every core in turn."""
    return require(CORES[request.param])


@pytest.fixture
def m3() -> Core:
    """One core, for what does not depend on it."""
    return require(CORES["cortex-m3"])


@pytest.fixture(scope="session")
def programs() -> Path:
    """The C sources of the tests."""
    return Path(__file__).parent / "programs"
