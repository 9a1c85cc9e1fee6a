"""The float32 peak of a machine: `native/peak_float.c`, multiply-adds in registers, in every thread at once."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from benchmarks.native.compiled import compiled
from qs5.machine import processors

ROUNDS = 30_000_000
"""Some 50 ms at four GHz: long enough for the clock to be that of a training step's products."""


class Peak(NamedTuple):
    """A call to time, and how many multiply-adds it does, in how many threads."""

    call: Callable[[], object]
    multiply_adds: int
    threads: int


def float_peak(rounds: int = ROUNDS) -> Peak:
    """As many threads as XLA takes: one a processor that this process may use. Needs a C compiler."""
    library = compiled("peak_float")
    library.peak_float.argtypes, library.peak_float.restype = (ctypes.c_int64,), ctypes.c_float
    library.peak_float_multiply_adds.argtypes = (ctypes.c_int64,)
    library.peak_float_multiply_adds.restype = ctypes.c_int64
    threads = processors()
    pool = ThreadPoolExecutor(threads)  # a call through ctypes lets go of the interpreter's lock
    count = threads * library.peak_float_multiply_adds(rounds)
    return Peak(lambda: list(pool.map(library.peak_float, [rounds] * threads)), count, threads)
