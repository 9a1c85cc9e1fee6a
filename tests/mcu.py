"""For tests that run programs on emulated cores: when the tools are missing they skip, and say what to install.

Where the environment has QS5_REQUIRE_MCU=1, as in CI, they fail instead: there a skip would hide that nothing ran.
"""

import os

import pytest

from qs5.backends.mcu import Core, missing_tools
from qs5.backends.mcu.tools import explain


def require(core: Core) -> Core:
    """The core, if it can be compiled for and emulated; else skips or fails the test."""
    if missing := missing_tools([core]):
        if os.environ.get("QS5_REQUIRE_MCU") == "1":
            pytest.fail(f"QS5_REQUIRE_MCU=1, but: {explain(missing)}")
        pytest.skip(explain(missing))
    return core
