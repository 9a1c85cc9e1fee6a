"""The native engine: C99 under `native/engine`, for the instruction set that the processor has. NumPy only.

It gives the codes of the reference, to the bit, on every instruction set. `available()` says whether this
installation has it; where it has not, `qs5.integer.engine(model)` takes the reference.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from qs5.integer import ops as o
from qs5.integer.checks import check
from qs5.integer.engine import State, check_raw, refuse_bidirectional
from qs5.integer.errors import IntegerModelError
from qs5.integer.model import InputQuantizer, IntegerModel
from qs5.integer.signals import Signal
from qs5.machine import processors

LEVEL_VARIABLE = "QS5_NATIVE_ISA"
"""Environment variable that limits the instruction set: baseline, avx2 or avx512vnni."""

OFF_VARIABLE = "QS5_NATIVE"
"""Environment variable that turns the extension off where it is 0, the training kernels too."""

RAW_TYPES = ("int8", "uint8", "int16", "uint16", "int32")
NUMBERS: dict[type[o.Op], tuple[str, ...]] = {
    o.Recurrence: ("M", "shift", "reverse"),
    o.QGelu: ("offset", "shift"),
    o.HardSigmoid: ("offset", "M", "shift"),
    o.Multiply: ("shift",),
    o.Add: ("shift",),
}
"""The plain numbers of an op in the order of `native/engine/engine.h`."""
KIND_NUMBERS = {kind: i for i, kind in enumerate(o.KINDS.values())}


def available() -> bool:
    """Whether the extension was built, and is not turned off."""
    return bool(levels())


def levels() -> tuple[str, ...]:
    """Instruction sets of this processor and this build, the best one last; none without the extension."""
    if os.environ.get(OFF_VARIABLE) == "0":
        return ()
    try:
        from qs5 import _native  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:
        return ()
    return tuple(_native.engine_levels()) if hasattr(_native, "engine_levels") else ()


def choose_level(wanted: str | None) -> str:
    """The level asked for, by argument or environment, or the best. Raises IntegerModelError if it is not there."""
    found = levels()
    if not found:
        raise IntegerModelError(
            "expected the native engine, but this installation has none (it was built without a compiler, or "
            f"{OFF_VARIABLE}=0 turns it off); use the backend reference, or reinstall qs5 where a C and a C++ compiler "
            "are"
        )
    asked = wanted or os.environ.get(LEVEL_VARIABLE)
    if asked is None or asked == "avx512":  # the name that the training kernels use
        return found[-1]
    if asked not in found:
        raise IntegerModelError(f"expected an instruction set of {', '.join(found)}, got {asked!r}")
    return asked


class NativeEngine:
    """A model made ready for the native engine (`qs5.integer.engine.Engine`).

    level: instruction set, see `levels`. threads: for batches, each takes whole sequences. counting: count saturated
    codes, on a slower path. fused: ops that follow each other run together where the instruction set has that; False
    runs every op by itself, to compare with.
    """

    def __init__(
        self,
        model: IntegerModel,
        *,
        level: str | None = None,
        threads: int = 1,
        counting: bool = False,
        fused: bool = True,
    ) -> None:
        check(model)
        if threads < 1:
            raise IntegerModelError(f"expected at least 1 thread, got {threads}")
        self.level = choose_level(level)
        from qs5 import _native  # pyright: ignore[reportAttributeAccessIssue]

        self.model, self.threads = model, threads
        masked = model.padding == "masked"
        self._engine = _native.Engine(_input(model.input), _ops(model), self.level, counting, fused, masked)
        self._layout = _Layout(model, *self._engine.layout)
        self._counts = np.zeros(len(model.signals), np.int64) if counting else None

    def logits(self, raw: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Codes of the last signal for raw (B, L, D): (B, classes) int64, or (B, L, d_out) of a regression."""
        raw = np.asarray(raw)
        lengths = None if lengths is None else np.ascontiguousarray(lengths, np.int64)
        check_raw(self.model, raw, lengths)
        records = self._layout.new(len(raw))
        outputs = self._run(raw, records, lengths, self._counts)
        return outputs if outputs is not None else self._answer(records, self._counts)

    def stream(self, batch: int = 1) -> "NativeStream":
        """A new stream. Raises IntegerModelError for a bidirectional model."""
        return NativeStream(self, batch)

    @property
    def saturated(self) -> dict[str, int]:
        """How many codes of each signal `logits` has saturated so far."""
        return self._named(self._counts)

    def _named(self, counts: np.ndarray | None) -> dict[str, int]:
        if counts is None:
            raise IntegerModelError("expected an engine that counts: make it with counting=True")
        return dict(zip(self.model.signals, counts.tolist(), strict=True))

    def _run(
        self,
        raw: np.ndarray,
        records: np.ndarray,
        lengths: np.ndarray | None,
        counts: np.ndarray | None,
        block: int = 0,
    ) -> np.ndarray | None:
        codes = _raw(raw)
        outputs = self._engine.run(codes, lengths, records, self.threads, block, counts)
        return None if outputs is None else outputs.astype(np.int64)

    def _answer(self, records: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        return self._engine.answer(records, counts).astype(np.int64)


class NativeStream:
    """B sequences in flight (`qs5.integer.engine.Stream`)."""

    def __init__(self, engine: NativeEngine, batch: int) -> None:
        refuse_bidirectional(engine.model)
        if batch < 1:
            raise IntegerModelError(f"expected at least 1 sequence, got {batch}")
        self.engine, self.batch = engine, batch
        self._records = engine._layout.new(batch)
        self._counts = None if engine._counts is None else np.zeros_like(engine._counts)

    def run(self, raw: np.ndarray, *, block: int = 0) -> np.ndarray | None:
        """Raw samples (B, L, D); a regression's outputs (B, L, d_out) in codes, else None.

        block: how many rows go through the model together. 1 is what a step at a time costs in C; 0 chooses.
        """
        raw, channels = np.asarray(raw), _channels(self.engine.model)
        expected = (self.batch, channels)
        if raw.ndim != 3 or (raw.shape[0], raw.shape[2]) != expected or raw.dtype.kind not in "iu":
            raise IntegerModelError(
                f"expected raw samples ({self.batch}, L, {channels}) of whole numbers, got {raw.shape} {raw.dtype}"
            )
        return self.engine._run(raw, self._records, None, self._counts, block)

    def answer(self) -> np.ndarray:
        """Logits of the sequences so far. Raises ValueError before the first step."""
        return self.engine._answer(self._records)

    @property
    def saturated(self) -> dict[str, int]:
        """How many codes of each signal of the steps were saturated so far; reset by `reset`."""
        return self.engine._named(self._counts)

    @property
    def state(self) -> State:
        """A copy of everything remembered."""
        return self.engine._layout.read(self._records)

    def restore(self, state: State) -> None:
        """Go on from a saved state. Raises IntegerModelError for one of another model or batch."""
        self._records = self.engine._layout.write(state, self.batch)

    def reset(self) -> None:
        """Back to before the first step."""
        self._records = self.engine._layout.new(self.batch)
        if self._counts is not None:
            self._counts[:] = 0


def engine(model: IntegerModel) -> NativeEngine:
    """The native engine of a model, with one thread for each processor that this process may use."""
    return NativeEngine(model, threads=processors())


class _Layout:
    """Records of sequences, (B, words) int64, as named states and back: `qs5_record` of engine.h."""

    def __init__(
        self, model: IntegerModel, size: int, total: int, last: int, steps: int, states: int, pooled: int
    ) -> None:
        self._words, self._pooled = size // 8, pooled
        self._bytes = {"pool.total": (total, np.int64), "pool.last": (last, np.int32)}
        self._steps = steps // 8
        ops = [op for op in model.ops if isinstance(op, o.Recurrence)]
        ends = np.cumsum([2 * op.modes for op in ops]).tolist()
        self._states = {
            op.out.name: (slice(end - 2 * op.modes, end), op.out) for op, end in zip(ops, ends, strict=True)
        }
        assert states == (ends[-1] if ends else 0)

    def new(self, batch: int) -> np.ndarray:
        """Records of sequences that have not begun."""
        return np.zeros((batch, self._words), np.int64)

    def read(self, records: np.ndarray) -> State:
        """Everything in records, copied."""
        half_words = records.view(np.int16)
        found: State = {name: half_words[:, at].astype(np.int32) for name, (at, _) in self._states.items()}
        steps = records[0, self._steps].copy()
        if self._pooled and steps:
            found |= {name: self._pool_part(records, name).copy() for name in self._bytes}
        return found | {"pool.steps": np.asarray(steps, np.int64)}

    def write(self, state: State, batch: int) -> np.ndarray:
        """Records that hold a state."""
        records = self.new(batch)
        half_words = records.view(np.int16)
        for name, (at, signal) in self._states.items():
            if name in state:  # absent before the first step
                half_words[:, at] = _within(name, state[name], (batch, at.stop - at.start), signal)
        # An engine whose pool is the last step need not count the steps: one has been.
        records[:, self._steps] = max(int(state.get("pool.steps", 0)), int("pool.last" in state))
        for name in self._bytes:
            if self._pooled and name in state:
                part = self._pool_part(records, name)
                part[:] = _shaped(name, state[name], part.shape)
        return records

    def _pool_part(self, records: np.ndarray, name: str) -> np.ndarray:
        at, dtype = self._bytes[name]
        begin = at // np.dtype(dtype).itemsize
        return records.view(dtype)[:, begin : begin + self._pooled]


def _shaped(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if np.shape(array) != shape:
        raise IntegerModelError(f"state: expected {name} of shape {shape}, got {np.shape(array)}")
    return np.asarray(array)


def _within(name: str, array: np.ndarray, shape: tuple[int, ...], signal: Signal) -> np.ndarray:
    codes = _shaped(name, array, shape)
    if codes.size and (codes.min() < signal.low or codes.max() > signal.high):
        raise IntegerModelError(f"state: expected {name} within {signal.low} to {signal.high}")
    return codes


# -- the model as native/engine/engine.h wants it ---------------------------------------------------------------


def _signal(s: Signal) -> tuple[int, int, bool]:
    return s.channels, s.bits, s.signed


def _input(q: InputQuantizer) -> tuple[Any, ...]:
    scaled = q.source in ("uint8", "int16")
    return _signal(q.out), list(q.M) if scaled else [], list(q.offset) if scaled else [], q.shift


def _ops(model: IntegerModel) -> list[tuple[Any, ...]]:
    numbers = {name: i for i, name in enumerate(model.signals)}
    return [_op(op, numbers) for op in model.ops]


def _op(op: o.Op, signals: Mapping[str, int]) -> tuple[Any, ...]:
    names = [getattr(op, field) for field in op.reads]
    reads = [-1 if name is None else signals[name] for name in names]
    kind = o.computed_as(op)
    plain = [int(getattr(op, field)) for field in NUMBERS.get(kind, ())]
    arrays = [np.ascontiguousarray(getattr(op, name)) for name in o.layouts(kind)]
    return KIND_NUMBERS[kind], reads, _signal(op.out), plain, arrays


def _channels(model: IntegerModel) -> int:
    return 1 if model.input.source == "token" else model.input.out.channels


def _raw(raw: np.ndarray) -> np.ndarray:
    """Contiguous, of a type that the engine reads. Codes and tokens beyond 32 bits saturate anyway."""
    raw = np.ascontiguousarray(raw)
    if raw.dtype.isnative and raw.dtype.name in RAW_TYPES:
        return raw
    return np.clip(raw, -(2**31), 2**31 - 1).astype(np.int32)
