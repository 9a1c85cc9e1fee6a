"""What a built program takes: flash and static RAM, symbols, and the cost of measured calls."""

import re
import subprocess
from dataclasses import dataclass

from qs5.backends.mcu.boards import Core
from qs5.backends.mcu.build import Program


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One call. instructions: executed, as QEMU counts them, its return included; neither cycles nor time.

    stack_bytes: how far below the caller's stack pointer it wrote; a frame's end that is reserved and never written
    does not show.
    """

    instructions: int
    stack_bytes: int


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """flash_bytes: code, constants and the initial values of data. static_ram_bytes: data and bss, without stack."""

    flash_bytes: int
    static_ram_bytes: int

    def __add__(self, other: "Sizes") -> "Sizes":
        return Sizes(
            flash_bytes=self.flash_bytes + other.flash_bytes,
            static_ram_bytes=self.static_ram_bytes + other.static_ram_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """A line of `nm`: kind is its letter (T code, R constants, D data, B bss, U undefined ...)."""

    name: str
    kind: str


FLASH = frozenset({".text", ".rodata", ".data"})
RAM = frozenset({".data", ".bss"})
"""Sections of the linker script by where they are."""

NONE = Sizes(flash_bytes=0, static_ram_bytes=0)
HARNESS, PADDING = "harness", "padding"


def cost_of(core: Core, *, ticks: int, stack_bytes: int) -> Cost:
    """From what the board counted."""
    return Cost(instructions=core.counter.instructions(ticks), stack_bytes=stack_bytes)


def sizes(program: Program) -> Sizes:
    """Of the whole ELF file: program, harness and what they take from libgcc."""
    text, data, bss = map(int, _output(program, "size", "--format=berkeley").splitlines()[1].split()[:3])
    return Sizes(flash_bytes=text + data, static_ram_bytes=data + bss)


def sizes_by_object(program: Program) -> dict[str, Sizes]:
    """The parts of `sizes`, which they add up to, from the linker's map.

    Keys: each source of the program as it was passed to `build`, "libgcc(member)", "harness", "padding".
    """
    parts = {str(source): NONE for source in program.objects.values()}
    for section, size, origin in _contributions(program.map.read_text()):
        name = _part(program, origin)
        parts[name] = parts.get(name, NONE) + _in_section(section, size)
    return parts


def symbols(program: Program) -> tuple[Symbol, ...]:
    """All symbols of the ELF file, by name."""
    words = map(str.split, _output(program, "nm", "--format=posix").splitlines())
    return tuple(sorted((Symbol(name=w[0], kind=w[1]) for w in words), key=lambda symbol: symbol.name))


def float_symbols(program: Program) -> tuple[str, ...]:
    """Names of floating-point helpers in the ELF file: any is a sign of float arithmetic in the program.

    The cores are compiled with software floating point, so that arithmetic, comparison or conversion of a float, double
    or half calls libgcc. What the compiler computes itself, from constants, leaves no trace, nor does a copy.
    """
    return tuple(symbol.name for symbol in symbols(program) if is_float_symbol(symbol.name))


def is_float_symbol(name: str) -> bool:
    """Whether a function of libgcc (either naming) or libm works on floating point."""
    return bool(_AEABI.fullmatch(name) or _LIBGCC.fullmatch(name) or _LIBM.fullmatch(name))


# "Run-time ABI for the Arm Architecture", section 5.1: __aeabi_fadd, __aeabi_cdcmple, __aeabi_d2iz, __aeabi_ul2f ...
_AEABI = re.compile(r"__aeabi_(c?[df]r?cmp\w+|[df](add|div|mul|r?sub|neg)|[dfh]2\w+|u?[il]2[dfh]\w*)")
# GCC internals, section 4.2: __addsf3, __floatunsidf, __fixdfdi, __extendhfsf2, __muldc3 ...; sf, df, tf, hf are modes.
_MODE = "[hsdtx]f"
_ARITHMETIC = "add|sub|mul|div|neg|abs|eq|ne|lt|le|gt|ge|unord|cmp|powi"
_LIBGCC = re.compile(
    rf"__(({_ARITHMETIC})({_MODE}|[hsdtx]c)\d|fix(uns)?{_MODE}[sdt]i|float(un)?[sdt]i{_MODE}"
    rf"|(extend|trunc){_MODE}{_MODE}\d|gnu_(h2f|f2h|d2h)_\w+)"
)
# C99, section 7.12, each for double, float (f) and long double (l); __ieee754_* and __kernel_* are newlib's insides.
_LIBM_NAMES = (
    "a?(cos|sin|tan)h?|atan2|exp|exp2|expm1|frexp|ilogb|ldexp|log|log10|log1p|log2|logb|modf|scalbl?n|cbrt|fabs|hypot"
    "|pow|sqrt|erfc?|[lt]gamma|ceil|floor|nearbyint|l?l?r(int|ound)|trunc|fmod|remainder|remquo|copysign|nan"
    "|nextafter|nexttoward|fdim|fmax|fmin|fma"
)
_LIBM = re.compile(rf"({_LIBM_NAMES})[fl]?|__ieee754_\w+|__kernel_\w+")

# In the map: ` .text.name  0xADDRESS  0xSIZE  FILE`, with a line break after a long name; ` *fill*  0xADDRESS  0xSIZE`.
_CONTRIBUTION = re.compile(r"^ (?:[.*\w]\S*)\s+0x[0-9a-f]+\s+0x([0-9a-f]+)(?: (\S.*))?$")
_OUTPUT_SECTION = re.compile(r"^(\.\S+)")


def _contributions(text: str) -> list[tuple[str, int, str]]:
    """(output section, bytes, object file or "" for padding) of everything in the linker's map."""
    found: list[tuple[str, int, str]] = []
    section = ""
    placed = text.split("Linker script and memory map", maxsplit=1)[1]
    for line in re.sub(r"^( \S+)\n\s+(?=0x)", r"\1 ", placed, flags=re.MULTILINE).splitlines():
        if start := _OUTPUT_SECTION.match(line):
            section = start[1]
        elif item := _CONTRIBUTION.match(line.rstrip()):
            found.append((section, int(item[1], 16), item[2] or ""))
    return found


def _part(program: Program, origin: str) -> str:
    if not origin:
        return PADDING
    if origin in program.objects:
        return str(program.objects[origin])
    archive = re.fullmatch(r".*/(lib\w+)\.a\((.+)\.o\)", origin)
    return f"{archive[1]}({archive[2]})" if archive else HARNESS


def _in_section(name: str, size: int) -> Sizes:
    return Sizes(flash_bytes=size * (name in FLASH), static_ram_bytes=size * (name in RAM))


def _output(program: Program, tool: str, *arguments: str) -> str:
    command = [program.core.tool(tool), *arguments, str(program.elf)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
