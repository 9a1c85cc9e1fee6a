"""The cores: how to compile for each, the QEMU board that has it, and that board's counter of instructions.

Sources: memory maps and clocks are those of QEMU 7.2 (`hw/arm/mps2.c`, `mps2-tz.c`, `armsse.c`, `nrf51_soc.c`,
`hw/riscv/virt.c`) and of the manuals these cite: Arm application notes AN385, AN386, AN500, AN547; nRF51 reference
manual 3.0; RISC-V privileged specification, section 3.1.10 (minstret).
"""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True)
class Region:
    """A region of memory, in bytes."""

    origin: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A 32-bit counter that advances with the emulated instructions.

    Under `-icount shift=s` an instruction takes 2^s ns of emulated time, hence hertz 2^s / 10^9 ticks. The shifts are
    chosen so that this is above 2, which makes the count of a window exact, and so that 2^32 ticks last for
    10^9 instructions and more. (Shift 0 would leave 40 instructions a tick on a board of 25 MHz.)

    hertz: ticks a second. start: (address, value) written at reset to start it. capture: where a write makes the
    count readable, or does nothing. value: where it is read. harness_instructions: what `mcu_window` itself executes
    between its two readings.
    """

    hertz: int
    icount_shift: int
    harness_instructions: int
    start: tuple[tuple[int, int], ...] = ()
    capture: int = 0
    value: int = 0
    counts_down: bool = False

    def instructions(self, ticks: int) -> int:
        """Instructions of a call that took so many ticks, its return included."""
        per_instruction = self.hertz << self.icount_shift  # in ticks, times 10^9
        return (ticks * 10**9 + per_instruction // 2) // per_instruction - self.harness_instructions

    @property
    def limit(self) -> int:
        """Longest call, in instructions, before 32 bits wrap and the count is wrong unnoticed."""
        return self.instructions(2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class Core:
    """A processor core, its compiler, and the emulated board that carries it.

    name: what the user calls it. triple: prefix of the GNU tools. flags: for the compiler. machine: arguments of the
    emulator. has_dsp: SMLAD and its kin (ACLE `__ARM_FEATURE_DSP`). has_mve: integer vectors (`__ARM_FEATURE_MVE`).
    """

    name: str
    title: str
    triple: str
    flags: tuple[str, ...]
    qemu: str
    machine: tuple[str, ...]
    rom: Region
    ram: Region
    counter: Counter
    has_dsp: bool = False
    has_mve: bool = False

    @property
    def family(self) -> str:
        """Which of the start-up files it takes: arm or riscv."""
        return "arm" if self.triple.startswith("arm") else "riscv"

    def tool(self, name: str) -> str:
        """A GNU tool for this core, such as gcc or nm."""
        return f"{self.triple}-{name}"


# Seven instructions: see window_arm.S.
_ARM_SHIFT, _ARM_WINDOW = 7, 7

# CMSDK APB timer 0: CTRL +0, VALUE +4, RELOAD +8, INTCLEAR +12. Interrupts stay off: a write to INTCLEAR does nothing.
_CMSDK_TIMER = Counter(
    hertz=25_000_000,
    icount_shift=_ARM_SHIFT,
    harness_instructions=_ARM_WINDOW,
    start=((0x40000008, 0xFFFFFFFF), (0x40000004, 0xFFFFFFFF), (0x40000000, 1)),
    capture=0x4000000C,
    value=0x40000004,
    counts_down=True,
)

# nRF51 TIMER0 at 16 MHz: BITMODE 32 bits, PRESCALER 1, TASKS_START; TASKS_CAPTURE[0] copies the count to CC[0].
_NRF51_TIMER = Counter(
    hertz=16_000_000,
    icount_shift=_ARM_SHIFT,
    harness_instructions=_ARM_WINDOW,
    start=((0x40008508, 3), (0x40008510, 0), (0x40008000, 1)),
    capture=0x40008040,
    value=0x40008540,
)

# System counter of the SSE-300 at 32 MHz: CNTCR.EN in the control frame (secure alias); low word of CNTCV in the status
# frame. The status frame is read-only: CNTSCR, unused while CNTCR.SCEN is 0, takes the write.
_SSE300_COUNTER = Counter(
    hertz=32_000_000,
    icount_shift=_ARM_SHIFT,
    harness_instructions=_ARM_WINDOW,
    start=((0x58100000, 1),),
    capture=0x58100010,
    value=0x58101000,
)

# QEMU 7.2 answers minstret with emulated nanoseconds: instructions only at shift 0.
_MINSTRET = Counter(hertz=10**9, icount_shift=0, harness_instructions=3)


# Soft float even where the core has a floating-point unit: any use of float then shows as a call of libgcc.
_SOFT = ("-mfloat-abi=soft",)


def _cortex_m(
    *,
    name: str,
    title: str,
    machine: tuple[str, ...],
    rom: Region,
    ram: Region,
    counter: Counter = _CMSDK_TIMER,
    cpu: str | None = None,
    float_abi: tuple[str, ...] = _SOFT,
    has_dsp: bool = False,
    has_mve: bool = False,
) -> Core:
    return Core(
        name=name,
        title=title,
        triple="arm-none-eabi",
        flags=(f"-mcpu={cpu or name}", "-mthumb", *float_abi),
        qemu="qemu-system-arm",
        machine=machine,
        rom=rom,
        ram=ram,
        counter=counter,
        has_dsp=has_dsp,
        has_mve=has_mve,
    )


def _mps2(name: str, title: str, machine: str, *, has_dsp: bool) -> Core:
    rom, ram = Region(origin=0, length=4 * MIB), Region(origin=0x20000000, length=4 * MIB)
    return _cortex_m(name=name, title=title, machine=("-M", machine), rom=rom, ram=ram, has_dsp=has_dsp)


# A real Cortex-M0, so that an ARMv7-M instruction or an unaligned access faults, which the M3 boards would let pass.
# Its memory is enlarged from 256 KiB and 16 KiB: test programs carry data, and sizes are measured anyway.
_M0 = _cortex_m(
    name="cortex-m0",
    title="Cortex-M0",
    machine=(
        *("-M", "microbit"),
        *("-global", f"nrf51-soc.flash-size={4 * MIB}"),
        *("-global", f"nrf51-soc.sram-size={MIB}"),
    ),
    rom=Region(origin=0, length=4 * MIB),
    ram=Region(origin=0x20000000, length=MIB),
    counter=_NRF51_TIMER,
)

# Vectors of integers only: +nofp leaves MVE without its floating-point half. GCC has MVE with the hard ABI only.
_M55 = _cortex_m(
    name="cortex-m55",
    title="Cortex-M55",
    cpu="cortex-m55+nofp",
    float_abi=("-mfloat-abi=hard",),
    machine=("-M", "mps3-an547"),
    rom=Region(origin=0, length=512 * KIB),
    ram=Region(origin=0x20000000, length=512 * KIB),
    counter=_SSE300_COUNTER,
    has_dsp=True,
    has_mve=True,
)

# Not rv32imac_zicsr, though the harness reads a control register: GCC 12 then links the 64-bit libgcc. The assembly
# files name the extension themselves.
_RV32 = Core(
    name="rv32imac",
    title="RV32IMAC",
    triple="riscv64-unknown-elf",
    flags=("-march=rv32imac", "-mabi=ilp32"),
    qemu="qemu-system-riscv32",
    machine=("-M", "virt", "-bios", "none"),
    rom=Region(origin=0x80000000, length=8 * MIB),
    ram=Region(origin=0x80800000, length=8 * MIB),
    counter=_MINSTRET,
)

_ALL = (
    _M0,
    _mps2("cortex-m3", "Cortex-M3", "mps2-an385", has_dsp=False),
    _mps2("cortex-m4", "Cortex-M4", "mps2-an386", has_dsp=True),
    _mps2("cortex-m7", "Cortex-M7", "mps2-an500", has_dsp=True),
    _M55,
    _RV32,
)
CORES: dict[str, Core] = {core.name: core for core in _ALL}
