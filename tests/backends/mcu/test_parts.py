"""What needs neither compiler nor emulator: names of float functions, C arrays, missing tools, reading of output."""

import numpy as np
import pytest
from tests.mcu import require

from qs5.backends.mcu import CORES, Output, c_array, missing_tools, require_tools
from qs5.backends.mcu.measure import Cost, is_float_symbol
from qs5.errors import UserError

FLOAT = [
    "__aeabi_fadd",
    "__aeabi_fmul",
    "__aeabi_dsub",
    "__aeabi_drsub",
    "__aeabi_cdcmple",
    "__aeabi_cfrcmple",
    "__aeabi_dcmpun",
    "__aeabi_i2f",
    "__aeabi_ui2d",
    "__aeabi_l2f",
    "__aeabi_ul2d",
    "__aeabi_f2iz",
    "__aeabi_d2ulz",
    "__aeabi_d2f",
    "__aeabi_h2f",
    "__aeabi_f2h",
    "__addsf3",
    "__muldf3",
    "__subtf3",
    "__divsf3",
    "__negsf2",
    "__eqsf2",
    "__gedf2",
    "__unordsf2",
    "__fixsfsi",
    "__fixunsdfdi",
    "__floatsisf",
    "__floatunsidf",
    "__floatundisf",
    "__extendsfdf2",
    "__extendhfsf2",
    "__truncdfsf2",
    "__mulsc3",
    "__divdc3",
    "__powisf2",
    "__gnu_h2f_ieee",
    "tanh",
    "tanhf",
    "expf",
    "exp2",
    "log1pl",
    "sqrtf",
    "pow",
    "roundf",
    "lrint",
    "floor",
    "fabsf",
    "acosh",
    "atan2f",
    "fmaxf",
    "scalbnf",
    "scalbln",
    "__ieee754_exp",
    "__kernel_sinf",
]
INTEGER = [
    "__aeabi_uidiv",
    "__aeabi_idivmod",
    "__aeabi_lmul",
    "__aeabi_ldivmod",
    "__aeabi_uldivmod",
    "__aeabi_llsl",
    "__aeabi_lasr",
    "__aeabi_memcpy",
    "__aeabi_idiv0",
    "__aeabi_unwind_cpp_pr0",
    "__divsi3",
    "__udivdi3",
    "__moddi3",
    "__muldi3",
    "__mulsi3",
    "__ashldi3",
    "__clzsi2",
    "__popcountsi2",
    "__bswapsi2",
    "__cmpdi2",
    "__gnu_thumb1_case_uqi",
    "qs5_step",
    "requantize",
    "logits",
    "expand",
    "tanh_table",
    "round_shift",
    "floors",
    "power",
    "main",
    "memcpy",
]


@pytest.mark.parametrize("name", FLOAT)
def test_float_function_is_known(name: str) -> None:
    assert is_float_symbol(name)


@pytest.mark.parametrize("name", INTEGER)
def test_integer_function_is_not_taken_for_float(name: str) -> None:
    assert not is_float_symbol(name)


def test_c_array() -> None:
    values = np.array([[1, -(2**31)], [2**31 - 1, 0]], np.int32)
    assert c_array("a", values) == (
        "static const int32_t a[2][2] =\n{{1, (-2147483647 - 1)},\n{2147483647, 0}};\n"
    )
    assert c_array("b", np.array([2**32 - 1], np.uint32)) == "static const uint32_t b[1] =\n{4294967295u};\n"
    assert c_array("c", np.arange(17, dtype=np.int8)).count("\n") == 3


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros(0, np.int8), np.int8(1), np.zeros(2, np.int64)])
def test_c_array_refuses(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a non-empty array of int8"):
        c_array("a", values)


def test_missing_tools_are_all_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert [m.tool for m in missing_tools(CORES.values())] == [
        "arm-none-eabi-gcc",
        "qemu-system-arm",
        "riscv64-unknown-elf-gcc",
        "qemu-system-riscv32",
    ]
    with pytest.raises(
        UserError, match=r"no arm-none-eabi-gcc, qemu-system-arm; .* gcc-arm-none-eabi qemu-system-arm$"
    ):
        require_tools([CORES["cortex-m3"]])


@pytest.mark.parametrize(("required", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_missing_tools_skip_a_test_or_fail_it(
    monkeypatch: pytest.MonkeyPatch, required: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("QS5_REQUIRE_MCU", required)
    with pytest.raises(outcome, match="apt-get install"):
        require(CORES["rv32imac"])


def test_rows_and_costs_of_an_output() -> None:
    lines = ("logits 1 -2", "text", "logits 3 4", "ragged 1", "ragged 1 2", "cost step 1003 64", "empty")
    output = Output(core=CORES["rv32imac"], status=0, lines=lines)
    assert output.rows("logits").tolist() == [[1, -2], [3, 4]]
    assert output.rows("empty").shape == (1, 0)
    assert output.costs("step") == (Cost(instructions=1000, stack_bytes=64),)
    assert output.costs("logits") == ()
    with pytest.raises(ValueError, match="got rows of \\[1, 2\\] values"):
        output.rows("ragged")
    with pytest.raises(ValueError, match="got no such row"):
        output.rows("logit")


@pytest.mark.parametrize("core", CORES.values(), ids=lambda core: core.name)
def test_a_tick_resolves_half_an_instruction_and_the_counter_lasts(core) -> None:
    counter = core.counter
    assert core.name == "rv32imac" or counter.hertz << counter.icount_shift > 2 * 10**9
    assert counter.limit > 10**9
