"""The harness by programs of which everything is known: output, instructions, stack, sizes, and how things go wrong."""

from pathlib import Path

import pytest

from qs5.backends.mcu import (
    BuildError,
    Core,
    FloatError,
    RunError,
    build,
    run,
    run_on,
    sizes,
    sizes_by_object,
)

FRAME_BYTES, FRAME_INSTRUCTIONS = 496, 4  # programs/known.S
COUNTS = (1, 2, 1000, 1_000_000, 20_000_000)  # programs/costs.c; the last is past SysTick's 24 bits


@pytest.mark.parametrize("optimize", ["-Os", "-O3"])
def test_output_status_and_what_main_finds(core: Core, optimize, programs: Path, tmp_path: Path) -> None:
    report = run_on(core, [programs / "hello.c"], folder=tmp_path, optimize=optimize)
    assert report.status == 7
    assert report.lines[0] == "hello"
    assert report.rows("statics").tolist() == [[7, -8, 2**31 - 1, 0, 0, 0, 0, 0]]
    assert report.rows("extremes").tolist() == [[-(2**31), -10, 0, 10, 10**9]]
    assert report.rows("quotient").tolist() == [[10**12 // 1000003]]
    assert report.lines[-3:] == ("aabcdef", "xxcdefg", "order -1 1 0")


def test_instructions_and_stack_of_known_functions(core: Core, programs: Path, tmp_path: Path) -> None:
    report = run_on(core, [programs / "costs.c", programs / "known.S"], folder=tmp_path)
    loops, frames = report.costs("loop"), report.costs("frame")
    assert [cost.instructions for cost in loops] == [2 * n + 2 for n in COUNTS]
    assert [cost.stack_bytes for cost in loops] == [0] * len(COUNTS)
    assert [cost.stack_bytes for cost in frames] == [FRAME_BYTES] * 2
    assert [cost.instructions for cost in frames] == [FRAME_INSTRUCTIONS] * 2


def test_sizes_are_those_of_the_parts(core: Core, programs: Path, tmp_path: Path) -> None:
    program = build(core, [programs / "hello.c"], folder=tmp_path)
    whole, parts = sizes(program), sizes_by_object(program)
    mine = parts[str(programs / "hello.c")]
    assert mine.static_ram_bytes == whole.static_ram_bytes == 3 * 4 + 5 * 4
    assert sum(part.flash_bytes for part in parts.values()) == whole.flash_bytes
    assert 200 < mine.flash_bytes < 800 and 700 < parts["harness"].flash_bytes < 1400
    assert any(name.startswith("libgcc(") for name in parts)


def test_float_is_caught(core: Core, programs: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatError, match=r"expected no floating-point symbol in .*mulsf3|__aeabi_fmul"):
        run_on(core, [programs / "scale_in_float.c"], folder=tmp_path)


def test_libm_is_not_there(core: Core, programs: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"(?s)cannot link .*undefined reference to `tanh'"):
        build(core, [programs / "tanh.c"], folder=tmp_path)


def test_a_warning_is_an_error(m3: Core, tmp_path: Path) -> None:
    source = tmp_path / "narrow.c"
    source.write_text(
        "#include <stdint.h>\nint main(void) { volatile int32_t x = 1; int8_t y = x; return y; }\n"
    )
    with pytest.raises(BuildError, match=r"(?s)cannot compile narrow.c for Cortex-M3.*-W.*conversion"):
        build(m3, [source], folder=tmp_path)


def test_a_fault_is_reported(core: Core, programs: Path, tmp_path: Path) -> None:
    program = build(core, [programs / "trap.c"], folder=tmp_path)
    with pytest.raises(RunError, match=r"(?s)got a processor fault.*fault: cause \d+, program counter \d+"):
        run(program)


def test_cortex_m0_is_one(core: Core, programs: Path, tmp_path: Path) -> None:
    program = build(core, [programs / "unaligned.c"], folder=tmp_path)
    if core.name == "cortex-m0":
        with pytest.raises(RunError, match="got a processor fault"):
            run(program)
    else:
        assert run(program).status == 0


@pytest.mark.parametrize("measured", [0, 1])
def test_stack_overflow_is_reported(core: Core, measured: int, programs: Path, tmp_path: Path) -> None:
    source, defines = [programs / "overflow.c"], {"MEASURED": measured}
    fits = run_on(core, source, folder=tmp_path, defines={**defines, "LEVELS": 5}, stack_bytes=2048)
    assert [64 * 5 < cost.stack_bytes < 2048 for cost in fits.costs("deep")] == [True] * measured
    program = build(core, source, folder=tmp_path, defines={**defines, "LEVELS": 40}, stack_bytes=2048)
    with pytest.raises(RunError, match="got a stack overflow"):
        run(program)


def test_a_program_without_end_is_stopped(m3: Core, programs: Path, tmp_path: Path) -> None:
    program = build(m3, [programs / "forever.c"], folder=tmp_path)
    with pytest.raises(RunError, match=r"(?s)no end within 2 s; last lines:\nstarted"):
        run(program, timeout_s=2.0)
