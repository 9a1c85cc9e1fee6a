"""The reference: every op of SPEC.md, section 4, in 64-bit NumPy. Slow and obvious; it defines the answer.

Signals are arrays (B, L, channels) of int64, after the pool (B, channels). A `Carry` holds what one chunk of a
sequence hands to the next, so that any split of a sequence gives the same codes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qs5.integer import ops as o
from qs5.integer.arithmetic import affine, normalize, requantize, rounded_mean, shift
from qs5.integer.checks import DIRECT_LIMIT
from qs5.integer.engine import State, check_raw, refuse_bidirectional
from qs5.integer.model import InputQuantizer, IntegerModel
from qs5.integer.signals import Signal

Codes = np.ndarray
Environment = dict[str, Codes]


@dataclass
class Carry:
    """Between two chunks: the state of every recurrence (B, 2M), and of the pool the sum, the last step and the
    number of steps, by signal name."""

    states: dict[str, Codes] = field(default_factory=dict)
    total: Codes | None = None
    last: Codes | None = None
    steps: int = 0


def clip(x: Codes, out: Signal) -> Codes:
    """Saturate to a signal's format."""
    return np.clip(x, out.low, out.high).astype(np.int64)


def quantize_input(raw: np.ndarray, q: InputQuantizer) -> Codes:
    """SPEC 4.1. raw (..., channels), or (..., 1) token numbers."""
    raw = np.asarray(raw, np.int64)
    if q.source in ("codes", "token"):
        return clip(raw, q.out)
    M, offset = np.asarray(q.M, np.int64), np.asarray(q.offset, np.int64)
    return clip(affine(raw, M, offset, q.shift), q.out)


def run_steps(model: IntegerModel, x: Codes, carry: Carry) -> Environment:
    """Every signal of the steps x (B, L, channels), codes of the first signal; `carry` moves on."""
    env = {model.input.out.name: x}
    for op in model.step_ops:
        if isinstance(op, o.Recurrence):
            env[op.out.name] = recurrence(op, env[op.x], carry)
        else:
            env[op.out.name] = _STEP[type(op)](op, env, model)
    if model.final_ops:
        _collect(env[model.final_ops[0].x], carry)  # type: ignore[attr-defined]
    return env


def finish(model: IntegerModel, carry: Carry) -> Environment:
    """The pool and what follows, from all steps so far. Raises ValueError before the first step."""
    pool, *rest = model.final_ops
    pooled = carry.total if isinstance(pool, o.MeanPool) else carry.last
    if pooled is None or (not carry.steps and isinstance(pool, o.MeanPool)):
        raise ValueError("expected at least one step before the answer")
    if isinstance(pool, o.MeanPool):
        pooled = rounded_mean(pooled, carry.steps)
    return _after_pool(model, pool, rest, pooled)


def _after_pool(model: IntegerModel, pool: o.Op, rest: list[o.Op], pooled: Codes) -> Environment:
    env = {pool.out.name: clip(pooled, pool.out)}
    for op in rest:
        env[op.out.name] = _STEP[type(op)](op, env, model)
    return env


def run(model: IntegerModel, raw: np.ndarray, lengths: np.ndarray | None = None) -> Environment:
    """Every signal for whole sequences raw (B, L, channels); steps past `lengths` (B,) do not count in the pool.

    With masked padding those steps are not there at all: their codes are given as 0.
    """
    if lengths is not None and model.bidirectional and model.padding == "masked":
        return _run_each(model, raw, lengths)
    env = run_steps(model, quantize_input(raw, model.input), Carry())
    if not model.final_ops:
        return env
    pool, *rest = model.final_ops
    x = env[pool.x]  # type: ignore[attr-defined]
    n = np.full(len(x), x.shape[1]) if lengths is None else np.asarray(lengths, np.int64)
    if isinstance(pool, o.MeanPool):
        total = np.stack([np.sum(x[i, : n[i]], axis=0) for i in range(len(x))])
        return env | _after_pool(model, pool, rest, rounded_mean(total, n[:, None]))
    return env | _after_pool(model, pool, rest, x[np.arange(len(x)), n - 1])


def _run_each(model: IntegerModel, raw: np.ndarray, lengths: np.ndarray) -> Environment:
    """Every sequence by itself, without its padding."""
    envs = [run(model, raw[i : i + 1, :n]) for i, n in enumerate(lengths)]
    steps = {model.input.out.name, *(op.out.name for op in model.step_ops)}

    def whole(name: str, codes: Codes) -> Codes:
        return np.pad(codes, ((0, 0), (0, raw.shape[1] - codes.shape[1]), (0, 0))) if name in steps else codes

    return {name: np.concatenate([whole(name, env[name]) for env in envs]) for name in envs[0]}


def logits(model: IntegerModel, raw: np.ndarray, lengths: np.ndarray | None = None) -> Codes:
    """The codes of the last signal: (B, classes), or (B, L, outputs) of a regression."""
    return run(model, raw, lengths)[model.output.name]


def _collect(x: Codes, carry: Carry) -> None:
    total = np.sum(x, axis=1)
    carry.total = total if carry.total is None else carry.total + total
    carry.last = x[:, -1]
    carry.steps += x.shape[1]


class ReferenceStream:
    """B sequences in flight (`qs5.integer.engine.Stream`)."""

    def __init__(self, model: IntegerModel, batch: int) -> None:
        refuse_bidirectional(model)
        self.model, self.batch, self.carry = model, batch, Carry()

    def run(self, raw: np.ndarray) -> np.ndarray | None:
        """SPEC 4, steps."""
        env = run_steps(self.model, quantize_input(raw, self.model.input), self.carry)
        return None if self.model.final_ops else env[self.model.output.name]

    def answer(self) -> np.ndarray:
        """SPEC 4, the pool and what follows it."""
        return finish(self.model, self.carry)[self.model.output.name]

    @property
    def state(self) -> State:
        """A copy of everything remembered."""
        found: State = {name: q.astype(np.int32) for name, q in self.carry.states.items()}
        if self.carry.total is not None:
            found["pool.total"] = self.carry.total.copy()
        if self.carry.last is not None:
            found["pool.last"] = self.carry.last.astype(np.int32)
        return found | {"pool.steps": np.asarray(self.carry.steps, np.int64)}

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        wide = {name: np.array(q, np.int64) for name, q in state.items()}
        total, last, steps = (wide.pop(f"pool.{part}", None) for part in ("total", "last", "steps"))
        self.carry = Carry(wide, total, last, 0 if steps is None else int(steps))

    def reset(self) -> None:
        """Back to before the first step."""
        self.carry = Carry()


@dataclass(frozen=True)
class ReferenceEngine:
    """The reference as an engine (`qs5.integer.engine.Engine`)."""

    model: IntegerModel

    def logits(self, raw: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Codes of the last signal."""
        check_raw(self.model, raw, lengths)
        return logits(self.model, raw, lengths)

    def stream(self, batch: int = 1) -> ReferenceStream:
        """A new stream."""
        return ReferenceStream(self.model, batch)


def engine(model: IntegerModel) -> ReferenceEngine:
    """The reference engine of a model."""
    return ReferenceEngine(model)


# -- the ops ---------------------------------------------------------------------------------------------------


def dense(op: o.Dense, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.2."""
    acc = env[op.x] @ op.weight.astype(np.int64).T
    if op.biases:
        acc = acc + op.bias
    return clip(requantize(acc, op.M, op.shift), op.out)


def embedding(op: o.Embedding, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.3."""
    return op.table.astype(np.int64)[np.clip(env[op.x][..., 0], 0, op.tokens - 1)]


def affine_op(op: o.Affine, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.4."""
    return clip(affine(env[op.x], op.M, op.offset, op.shift), op.out)


def layer_norm(op: o.LayerNorm, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.5."""
    return clip(affine(normalize(env[op.x]), op.M, op.offset, op.shift), op.out)


def recurrence(op: o.Recurrence, x: Codes, carry: Carry) -> Codes:
    """SPEC 4.6. A reverse one starts at zero: it belongs to whole sequences."""
    re, im, M = op.re.astype(np.int64), op.im.astype(np.int64), op.modes
    q = np.zeros_like(x[:, 0]) if op.reverse else carry.states.get(op.out.name, np.zeros_like(x[:, 0]))
    out = np.empty_like(x)
    steps = range(x.shape[1])
    for k in reversed(steps) if op.reverse else steps:
        q_re, q_im = q[:, :M], q[:, M:]
        acc = np.concatenate([re * q_re - im * q_im, re * q_im + im * q_re], axis=-1)
        rotated = shift(acc, op.shift) if op.M == 1 else requantize(acc, op.M, op.shift)
        q = clip(rotated + x[:, k], op.out)
        out[:, k] = q
    if not op.reverse:
        carry.states[op.out.name] = q
    return out


def shift_op(op: o.Shift, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.7."""
    return clip(shift(env[op.x], np.concatenate([op.shift, op.shift])), op.out)


def output(op: o.Output, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.8."""
    states = [env[name] for name in (op.x, op.x_reverse) if name is not None]
    acc = np.concatenate(states, axis=-1) @ op.C.astype(np.int64).T
    direct = requantize(env[op.u] * op.D, op.D_M, op.D_shift)
    acc = acc + np.clip(direct, -DIRECT_LIMIT, DIRECT_LIMIT)
    return clip(requantize(acc, op.M, op.shift), op.out)


def table(op: o.Table, env: Environment, model: IntegerModel) -> Codes:
    """SPEC 4.9."""
    return op.table.astype(np.int64)[env[op.x] - model.signals[op.x].low]


def qgelu(op: o.QGelu, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.10."""
    x = env[op.x]
    return clip(shift(x * np.clip(x + op.offset, 0, 2 * op.offset), op.shift), op.out)


def hard_sigmoid(op: o.HardSigmoid, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.11."""
    return clip(requantize(np.clip(env[op.x] + op.offset, 0, 2 * op.offset), op.M, op.shift), op.out)


def multiply(op: o.Multiply, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.12."""
    return clip(shift(env[op.x] * env[op.y], op.shift), op.out)


def add(op: o.Add, env: Environment, _: IntegerModel) -> Codes:
    """SPEC 4.13."""
    return clip(env[op.x] + shift(env[op.y], op.shift), op.out)


_STEP: dict[type[o.Op], Callable[[Any, Environment, IntegerModel], Codes]] = {
    o.Dense: dense,
    o.Embedding: embedding,
    o.Affine: affine_op,
    o.LayerNorm: layer_norm,
    o.Shift: shift_op,
    o.Output: output,
    o.Table: table,
    o.QGelu: qgelu,
    o.HardSigmoid: hard_sigmoid,
    o.Multiply: multiply,
    o.Add: add,
}
