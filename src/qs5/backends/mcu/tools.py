"""Which programs the harness needs, and the Debian packages that have them."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from qs5.backends.mcu.boards import Core
from qs5.errors import UserError

PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "qemu-system-riscv32": "qemu-system-misc",
}
"""Debian's and Ubuntu's. binutils (nm, size) come with the compilers; no C library is needed."""


@dataclass(frozen=True, kw_only=True)
class MissingTool:
    """A program that is not on the PATH."""

    tool: str
    package: str


def missing_tools(cores: Iterable[Core]) -> tuple[MissingTool, ...]:
    """What is not installed of that which these cores need; each tool once."""
    needed = dict.fromkeys(tool for core in cores for tool in (core.tool("gcc"), core.qemu))
    return tuple(
        MissingTool(tool=tool, package=PACKAGES[tool]) for tool in needed if shutil.which(tool) is None
    )


def explain(missing: Iterable[MissingTool]) -> str:
    """One line: what is missing, and the command that installs it."""
    found = list(missing)
    names, packages = ", ".join(m.tool for m in found), " ".join(m.package for m in found)
    return (
        f"expected a cross compiler and an emulator on the PATH, but found no {names}; on Debian or Ubuntu: "
        f"apt-get install --no-install-recommends {packages}"
    )


def require_tools(cores: Iterable[Core]) -> None:
    """Raises UserError that names all missing tools at once."""
    if missing := missing_tools(cores):
        raise UserError(explain(missing))
