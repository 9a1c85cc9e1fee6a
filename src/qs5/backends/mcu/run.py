"""Runs a built program in QEMU and reads what it prints."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qs5.backends.mcu.boards import Core
from qs5.backends.mcu.build import Program
from qs5.backends.mcu.measure import Cost, cost_of
from qs5.backends.mcu.tools import require_tools

STACK_OVERFLOW, FAULT = 98, 99
"""Exit codes of the harness itself, see harness.h."""

TIMEOUT_S = 60.0


class RunError(RuntimeError):
    """The program did not run to its end: time-out, processor fault, stack overflow, or the emulator's own failure."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a program printed before it ended by itself. status: what main returned, or the value for mcu_exit."""

    core: Core
    status: int
    lines: tuple[str, ...]

    def rows(self, key: str) -> np.ndarray:
        """All `mcu_row` lines of that key as int64 (rows, values). Raises ValueError if none, or of several lengths."""
        found = [line.split()[1:] for line in self.lines if line.split()[:1] == [key]]
        lengths = {len(row) for row in found}
        if len(lengths) != 1:
            what = "no such row" if not found else f"rows of {sorted(lengths)} values"
            raise ValueError(f"expected rows {key!r} of one length from {self.core.title}, got {what}")
        return np.array(found, dtype=np.int64).reshape(len(found), -1)

    def costs(self, key: str) -> tuple[Cost, ...]:
        """What each `mcu_cost_row` of that key measured, in order."""
        found = [line.split()[2:] for line in self.lines if line.split()[:2] == ["cost", key]]
        return tuple(cost_of(self.core, ticks=int(t), stack_bytes=int(s)) for t, s in found)


def command(program: Program) -> list[str]:
    """The emulator's command line."""
    core = program.core
    # Without a character device of its own, semihosting would write to stderr. Instructions are counted, not timed:
    # sleep=off lets no idle time of the host into the emulated clock.
    return [
        core.qemu,
        *core.machine,
        *("-display", "none", "-monitor", "none", "-serial", "none"),
        *("-chardev", "stdio,id=out"),
        *("-semihosting-config", "enable=on,target=native,chardev=out"),
        *("-icount", f"shift={core.counter.icount_shift},sleep=off"),
        *("-kernel", str(program.elf)),
    ]


def run(program: Program, *, timeout_s: float = TIMEOUT_S) -> Output:
    """Runs to the end, at most timeout_s of wall time. Any exit status of the program's own is returned.

    Raises RunError, or UserError where the emulator is missing.
    """
    require_tools([program.core])
    words = command(program)
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as stopped:
        raise RunError(_message(words, f"no end within {timeout_s:g} s", _text(stopped.stdout), "")) from None
    lines = done.stdout.splitlines()
    if lines[-1:] != [f"exit {done.returncode}"]:
        raise RunError(_message(words, f"emulator's exit code {done.returncode}", done.stdout, done.stderr))
    if done.returncode in (STACK_OVERFLOW, FAULT):
        what = "a stack overflow" if done.returncode == STACK_OVERFLOW else "a processor fault"
        raise RunError(_message(words, what, done.stdout, done.stderr))
    return Output(core=program.core, status=done.returncode, lines=tuple(lines[:-1]))


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _message(words: Sequence[str], got: str, stdout: str, stderr: str) -> str:
    tail = "\n".join([*stdout.splitlines()[-5:], *stderr.splitlines()[-20:]])
    return (
        f"expected the program to run to its end, got {got}; last lines:\n{tail}\n"
        f"to repeat it (-d int,guest_errors shows more): {' '.join(words)}"
    )
