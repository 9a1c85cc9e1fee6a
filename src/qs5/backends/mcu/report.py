"""The whole way in one call: build, check that nothing is floating point, run, measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qs5.backends.mcu.boards import Core
from qs5.backends.mcu.build import STACK_BYTES, Optimize, Program, build
from qs5.backends.mcu.measure import Sizes, float_symbols, sizes, sizes_by_object
from qs5.backends.mcu.run import TIMEOUT_S, Output, run


class FloatError(RuntimeError):
    """A program that should be integer-only has floating-point symbols; the message lists them."""


@dataclass(frozen=True, kw_only=True)
class Report(Output):
    """An output with the sizes of the program. sizes: whole ELF file; parts: see `sizes_by_object`."""

    sizes: Sizes
    parts: Mapping[str, Sizes]


def require_integer_only(program: Program) -> None:
    """Raises FloatError if the ELF file has a floating-point symbol."""
    if found := float_symbols(program):
        raise FloatError(
            f"expected no floating-point symbol in {program.elf} for {program.core.title}, got {', '.join(found)}; "
            f"{program.map} says which object file asked for each"
        )


def run_on(
    core: Core,
    sources: Sequence[Path],
    *,
    folder: Path,
    include: Sequence[Path] = (),
    defines: Mapping[str, str | int] | None = None,
    optimize: Optimize = "-O2",
    stack_bytes: int = STACK_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> Report:
    """Arguments as those of `build` and `run`. Raises BuildError, FloatError, RunError, UserError."""
    program = build(
        core,
        sources,
        folder=folder,
        include=include,
        defines=defines,
        optimize=optimize,
        stack_bytes=stack_bytes,
    )
    require_integer_only(program)
    output = run(program, timeout_s=timeout_s)
    return Report(
        core=core,
        status=output.status,
        lines=output.lines,
        sizes=sizes(program),
        parts=sizes_by_object(program),
    )
