"""From C sources to an ELF file that runs on a core's board: the program, the start-up code, a linker script."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from qs5.backends.mcu.boards import Core
from qs5.backends.mcu.tools import require_tools

DATA = Path(__file__).resolve().parent / "data"
INCLUDE = DATA / "include"
STACK_BYTES = 16 * 1024

Optimize = Literal["-Os", "-O1", "-O2", "-O3"]

WARNINGS = ("-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
# Freestanding, since there is no C library; but with built-ins, so that a memcpy of four bytes is one load, as it is
# for users who build with their C library.
LANGUAGE = ("-std=c99", "-ffreestanding", "-fbuiltin", "-fno-common")
# One section for each function and object, so that the linker drops what is never called.
SECTIONS = ("-ffunction-sections", "-fdata-sections")
# Merged string constants would be in the linker's map with sizes that do not add up.
NO_MERGING = ("-fno-merge-constants",)
# No unwind tables: nothing is ever unwound, and they would count as flash.
NO_UNWINDING = ("-fno-unwind-tables", "-fno-asynchronous-unwind-tables")
COMPILE = (*LANGUAGE, *WARNINGS, *SECTIONS, *NO_MERGING, *NO_UNWINDING)
LINK = ("-nostdlib", "-static", "-Wl,--gc-sections", "-Wl,--fatal-warnings")
# memcpy and its kin, in C: without these the compiler would make their loops into calls of themselves.
MEMORY_FLAGS = ("-fno-builtin", "-fno-tree-loop-distribute-patterns")


class BuildError(RuntimeError):
    """The compiler or the linker refused; the message has the command's own words."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program built for one core.

    objects: source of each of the program's own object files, by the object's path.
    """

    core: Core
    elf: Path
    map: Path
    objects: Mapping[str, Path]


def build(
    core: Core,
    sources: Sequence[Path],
    *,
    folder: Path,
    include: Sequence[Path] = (),
    defines: Mapping[str, str | int] | None = None,
    optimize: Optimize = "-O2",
    stack_bytes: int = STACK_BYTES,
) -> Program:
    """Compiles and links sources (.c or .S, with one `int main(void)`) in `folder`, which may exist.

    include: folders for headers; that of `mcu.h` is always there. defines: macros for the sources. stack_bytes: at
    the top of RAM, a multiple of 16; each `mcu_measure` paints all of it, so more takes longer.
    Raises BuildError, or UserError where the tools are missing.
    """
    if stack_bytes <= 0 or stack_bytes % 16:
        raise ValueError(f"expected stack_bytes, a positive multiple of 16, got {stack_bytes}")
    require_tools([core])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "board.h").write_text(_board_header(core))
    script = folder / "program.ld"
    script.write_text(_linker_script(core, stack_bytes))
    flags = [optimize, *(f"-I{path}" for path in include), *_macros(defines or {})]
    objects: dict[str, Path] = {}
    for i, source in enumerate(sources):
        objects[str(_compile(core, source, folder / f"{i}-{source.stem}.o", flags))] = source
    harness = _compile_harness(core, folder)
    elf, link_map = folder / "program.elf", folder / "program.map"
    output = ("-o", str(elf), f"-Wl,-Map={link_map}", "-T", str(script))
    _tool(core, [*core.flags, *LINK, *output, *objects, *harness, "-lgcc"], "link")
    return Program(core=core, elf=elf, map=link_map, objects=objects)


def _compile_harness(core: Core, folder: Path) -> list[str]:
    board = f"-I{folder}"
    files = {
        f"start_{core.family}.S": [board],
        f"window_{core.family}.S": [board],
        "harness.c": ["-Os", board],
        "memory.c": ["-O2", *MEMORY_FLAGS],
    }
    return [
        str(_compile(core, DATA / name, folder / f"harness-{Path(name).stem}.o", flags))
        for name, flags in files.items()
    ]


def _compile(core: Core, source: Path, target: Path, flags: Sequence[str]) -> Path:
    headers = (f"-I{DATA}", f"-I{INCLUDE}")
    _tool(
        core,
        [*core.flags, *COMPILE, *flags, *headers, "-c", str(source), "-o", str(target)],
        f"compile {source.name}",
    )
    return target


def _tool(core: Core, arguments: Sequence[str], what: str) -> None:
    command = [core.tool("gcc"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(
            f"cannot {what} for {core.title}: {done.stderr.strip()}\ncommand: {' '.join(command)}"
        )


def _macros(defines: Mapping[str, str | int]) -> list[str]:
    return [f"-D{name}={value}" for name, value in defines.items()]


def _board_header(core: Core) -> str:
    """board.h: plain numbers, as C and assembly both read it. A pair of zeros stands for no write."""
    counter = core.counter
    writes = ", ".join(f"{{{address:#x}, {value:#x}}}" for address, value in counter.start or ((0, 0),))
    return (
        f"#define MCU_COUNTER_START {writes}\n"
        f"#define MCU_COUNTER_CAPTURE {counter.capture:#x}\n"
        f"#define MCU_COUNTER_VALUE {counter.value:#x}\n"
        f"#define MCU_COUNTS_DOWN {int(counter.counts_down)}\n"
    )


def _linker_script(core: Core, stack_bytes: int) -> str:
    return Template((DATA / "program.ld.in").read_text()).substitute(
        rom_origin=f"{core.rom.origin:#x}",
        rom_length=f"{core.rom.length:#x}",
        ram_origin=f"{core.ram.origin:#x}",
        ram_length=f"{core.ram.length:#x}",
        stack_bytes=stack_bytes,
    )
