"""The emitted C as an engine: compiled for this computer and called through ctypes."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from qs5.backends.c99.export import write_sources
from qs5.backends.c99.header import answer_type, members, raw_type
from qs5.backends.c99.plan import Plan, plan_of
from qs5.backends.c99.text import Names
from qs5.errors import UserError
from qs5.integer.engine import State, check_raw, refuse_bidirectional
from qs5.integer.errors import IntegerModelError
from qs5.integer.model import IntegerModel

DTYPES = {f"{name}_t": np.dtype(name) for name in ("uint8", "int16", "int32", "uint32", "int64")}
CTYPES = {
    "int16_t": ctypes.c_int16,
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "int64_t": ctypes.c_int64,
}
FLAGS = ("-std=c99", "-O2", "-fPIC", "-shared")


def available() -> bool:
    """Whether there is a C compiler."""
    return compiler() is not None


def compiler() -> str | None:
    """The command of the C compiler: $CC, cc or gcc."""
    return next((c for c in (os.environ.get("CC", ""), "cc", "gcc") if c and shutil.which(c)), None)


def engine(model: IntegerModel) -> "C99Engine":
    """Exports, compiles and loads a model. Raises UserError where there is no compiler, or it fails."""
    return C99Engine(model)


class C99Engine:
    """A compiled model (`qs5.integer.engine.Engine`)."""

    def __init__(self, model: IntegerModel) -> None:
        self.model, self.plan = model, plan_of(model)
        self.State = _structure(self.plan)
        self.raw, self.answer = DTYPES[raw_type(model)], DTYPES[answer_type(model)]
        with tempfile.TemporaryDirectory(prefix="qs5-c99-") as folder:
            self.library = ctypes.CDLL(str(_compile(model, Path(folder))))

    def logits(self, raw: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Codes of the last signal."""
        check_raw(self.model, raw, lengths)
        n = np.full(len(raw), raw.shape[1]) if lengths is None else lengths
        if self.model.bidirectional:
            if self.model.padding == "fed" and np.any(n != raw.shape[1]):
                raise IntegerModelError(
                    "expected sequences of one length for a bidirectional model in emitted C, which has no padding; "
                    "give it each sequence alone"
                )
            return np.stack([self._whole(x[:k]) for x, k in zip(raw, n, strict=True)]).astype(np.int64)
        stream = self.stream(len(raw))
        if not self.model.final_ops:
            outputs = stream.run(raw)
            assert outputs is not None
            return outputs
        for i, x in enumerate(raw):
            stream.steps(i, x[: n[i]])
        return stream.answer()

    def stream(self, batch: int = 1) -> "C99Stream":
        """A new stream."""
        return C99Stream(self, batch)

    def samples(self, x: np.ndarray) -> np.ndarray:
        """Raw samples in their C type; codes beyond it saturate, as they do in the model."""
        limits = np.iinfo(self.raw)
        return np.ascontiguousarray(np.clip(x, limits.min, limits.max), self.raw)

    def _whole(self, x: np.ndarray) -> np.ndarray:
        state, raw = self.State(), self.samples(x)
        shape = (
            (len(x), self.model.output.channels)
            if not self.model.final_ops
            else (self.model.output.channels,)
        )
        out, scratch = np.zeros(shape, self.answer), np.zeros((len(x), max(self.plan.row, 1)), np.uint8)
        self.library.qs5_init(ctypes.byref(state))
        length = ctypes.c_uint32(len(x))
        self.library.qs5_run(ctypes.byref(state), _pointer(raw), length, _pointer(scratch), _pointer(out))
        return out


class C99Stream:
    """B sequences in flight (`qs5.integer.engine.Stream`)."""

    def __init__(self, owner: C99Engine, batch: int) -> None:
        refuse_bidirectional(owner.model)
        self.owner = owner
        self.states = [owner.State() for _ in range(batch)]
        self.count = 0
        for state in self.states:
            owner.library.qs5_init(ctypes.byref(state))

    def steps(self, i: int, x: np.ndarray) -> np.ndarray:
        """Sequence i takes the steps x (L, D); a regression's outputs (L, d_out)."""
        raw = self.owner.samples(x)
        outputs = np.zeros((len(x), self.owner.model.output.channels), self.owner.answer)
        state = ctypes.byref(self.states[i])
        self.owner.library.host_steps(state, _pointer(raw), ctypes.c_uint32(len(x)), _pointer(outputs))
        return outputs

    def run(self, raw: np.ndarray) -> np.ndarray | None:
        """Takes a chunk (B, L, D)."""
        outputs = [self.steps(i, x) for i, x in enumerate(raw)]
        self.count += raw.shape[1]
        return None if self.owner.model.final_ops else np.stack(outputs).astype(np.int64)

    def answer(self) -> np.ndarray:
        """Logits of the sequences so far."""
        out = np.zeros((len(self.states), self.owner.model.output.channels), self.owner.answer)
        for state, row in zip(self.states, out, strict=True):
            if self.owner.library.qs5_finish(ctypes.byref(state), _pointer(row)) < 0:
                raise ValueError("expected at least one step before the answer")
        return out.astype(np.int64)

    @property
    def state(self) -> State:
        """A copy of everything remembered. Of the pool, the part that this model does not need is zero."""
        found: State = {
            name: self._member(member, op_channels).astype(np.int32)
            for name, member, op_channels in _state_members(self.owner.plan)
        }
        if self.owner.model.final_ops and self.count:
            channels = self.owner.model.final_ops[0].out.channels
            zeros = np.zeros((len(self.states), channels), np.int64)
            has = {name for name, *_ in self.owner.State._fields_}
            found["pool.total"] = self._member("sum", channels) if "sum" in has else zeros
            found["pool.last"] = (self._member("last", channels) if "last" in has else zeros).astype(np.int32)
        return found | {"pool.steps": np.asarray(self.count, np.int64)}

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        self.reset()
        self.count = int(state.get("pool.steps", np.asarray(0)))
        members = [
            (member, state[name]) for name, member, _ in _state_members(self.owner.plan) if name in state
        ]
        members += [("sum", state.get("pool.total")), ("last", state.get("pool.last"))]
        for member, rows in members:
            for c_state, row in zip(self.states, rows if rows is not None else [], strict=rows is not None):
                if hasattr(c_state, member):
                    target = np.ctypeslib.as_array(getattr(c_state, member))
                    target[: len(row)] = row
        for c_state in self.states:
            c_state.steps = self.count

    def reset(self) -> None:
        """Back to before the first step."""
        self.count = 0
        for state in self.states:
            self.owner.library.qs5_reset(ctypes.byref(state))

    def _member(self, name: str, channels: int) -> np.ndarray:
        rows = [np.ctypeslib.as_array(getattr(state, name))[:channels] for state in self.states]
        return np.stack(rows).astype(np.int64)


def _state_members(plan: Plan) -> list[tuple[str, str, int]]:
    """Signal, member and channels of every recurrence."""
    names = Names()
    members_ = {name for _, name, _ in members(plan, names)}
    found = [(s.name, names(s.name), s.channels) for s in plan.model.signals.values()]
    return [entry for entry in found if entry[1] in members_]


def _structure(plan: Plan) -> type[ctypes.Structure]:
    """The state as ctypes sees it."""
    fields = [(name, CTYPES[kind] * n if n else CTYPES[kind]) for kind, name, n in members(plan, Names())]
    return type("State", (ctypes.Structure,), {"_fields_": fields})


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _compile(model: IntegerModel, folder: Path) -> Path:
    """A shared library of the model and of a loop over its steps."""
    command = compiler()
    if command is None:
        raise UserError("expected a C compiler for the c99 backend, found no cc; install one, or set CC")
    files = write_sources(model, folder, name="model", prefix="qs5")
    sources = [str(files.source)]
    if not model.bidirectional:
        loop = folder / "host.c"
        loop.write_text(_loop(model))
        sources.append(str(loop))
    target = folder / "model.so"
    done = subprocess.run([command, *FLAGS, "-o", str(target), *sources], capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"{command} cannot compile the emitted C: {done.stderr.strip()[:2000]}")
    return target


def _loop(model: IntegerModel) -> str:
    raw, answer, d, n = raw_type(model), answer_type(model), model.input.out.channels, model.output.channels
    output = "" if model.final_ops else f", outputs + k * {n}u"
    unused = "    (void)outputs;\n" if model.final_ops else ""
    return f"""#include "model.h"
void host_steps(qs5_state *state, const {raw} *raw, uint32_t length, {answer} *outputs);
void host_steps(qs5_state *state, const {raw} *raw, uint32_t length, {answer} *outputs)
{{
{unused}    for (uint32_t k = 0; k < length; k++) {{
        qs5_step(state, raw + k * {d}u{output});
    }}
}}
"""
