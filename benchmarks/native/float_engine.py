"""`float_engine.c`, compiled for this machine and called through ctypes."""

import ctypes

import numpy as np

from benchmarks.native.compiled import compiled
from benchmarks.native.parameters import LAYERS, MODES, H, Parameters


class FloatEngine:
    """Sequences u (B, L) of one channel; the records of a call start at zero."""

    def __init__(self, parameters: Parameters) -> None:
        self._library = compiled("float_engine")
        flat = np.ascontiguousarray(parameters.flat, np.float32)
        self._library.float_new.restype = ctypes.c_void_p
        self._engine = ctypes.c_void_p(self._library.float_new(LAYERS, H, MODES, _pointer(flat)))
        assert self._engine.value
        self.record = LAYERS * 2 * MODES + H

    def run(self, u: np.ndarray, *, block: int) -> np.ndarray:
        """The records after the sequences: states, then the sums of the pool."""
        records = np.zeros((len(u), self.record), np.float32)
        self.advance(u, records, block=block)
        return records

    def advance(self, u: np.ndarray, records: np.ndarray, *, block: int) -> None:
        """Goes on from records."""
        sizes = (ctypes.c_int64(u.shape[0]), ctypes.c_int64(u.shape[1]), ctypes.c_int64(block))
        self._library.float_run(self._engine, _pointer(u), *sizes, _pointer(records))


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.dtype == np.float32 and array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
