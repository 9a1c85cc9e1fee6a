"""Any plain C99 program on emulated bare-metal cores: what it prints, and what it costs there.

    from qs5.backends.mcu import CORES, run_on
    report = run_on(CORES["cortex-m4"], [Path("main.c"), Path("model.c")], folder=Path("build"))
    report.rows("logits"), report.costs["step"], report.sizes.flash_bytes

`mcu.h` is what a program may call: `mcu_row` prints integers, `mcu_measure` counts the instructions and the stack of a
call. QEMU counts instructions; it knows nothing of cycles or time, so no figure here is one.
"""

from qs5.backends.mcu.arrays import c_array as c_array
from qs5.backends.mcu.boards import CORES as CORES, Core as Core
from qs5.backends.mcu.build import BuildError as BuildError, Program as Program, build as build
from qs5.backends.mcu.measure import (
    Cost as Cost,
    Sizes as Sizes,
    float_symbols as float_symbols,
    sizes as sizes,
    sizes_by_object as sizes_by_object,
    symbols as symbols,
)
from qs5.backends.mcu.report import FloatError as FloatError, Report as Report, run_on as run_on
from qs5.backends.mcu.run import Output as Output, RunError as RunError, run as run
from qs5.backends.mcu.tools import missing_tools as missing_tools, require_tools as require_tools
