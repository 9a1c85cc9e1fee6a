"""Whether a model keeps the rules of SPEC.md: sizes that fit, codes in range, accumulators that cannot overflow.

Run by lowering before a model exists and by loading before one is used. All reasons are given at once.
"""

from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np

from qs5.integer import ops as o
from qs5.integer.arithmetic import NORM_BITS
from qs5.integer.errors import IntegerModelError
from qs5.integer.model import IntegerModel, Padding
from qs5.integer.ops import Op
from qs5.integer.signals import MAX_SIGNAL_BITS, Signal

INT32 = 2**31 - 1
MAX_CHANNELS = 2**14
MAX_OPS = 4096
MAX_LENGTH = 2**31 - 1
MAX_SHIFT = 46
DIRECT_LIMIT = 2**24
"""D u is clipped to this before it joins C x."""

Signals = dict[str, Signal]


def check(model: IntegerModel) -> None:
    """Raises IntegerModelError with every reason why a model breaks the rules."""
    if reasons := problems(model):
        raise IntegerModelError("integer model: " + "; ".join(reasons))


def problems(model: IntegerModel) -> list[str]:
    """Every broken rule, one sentence each."""
    found = list(_structure(model))
    if found:
        return found  # what follows relies on it
    found = list(_description(model))
    signals = model.signals
    for op in model.ops:
        if shapes := list(_shapes(op, signals)):
            found += [f"{op.out.name}: {text}" for text in shapes]
        else:
            found += [f"{op.out.name}: {text}" for text in _RULES[o.computed_as(op)](op, signals)]
    return found


def _structure(model: IntegerModel) -> Iterator[str]:
    if not 1 <= len(model.ops) <= MAX_OPS:
        yield f"expected 1 to {MAX_OPS} ops, got {len(model.ops)}"
        return
    if not 1 <= model.max_length <= MAX_LENGTH:
        yield f"expected a maximal length of 1 to {MAX_LENGTH}, got {model.max_length}"
    if model.padding not in get_args(Padding):
        yield f"expected padding of {' or '.join(get_args(Padding))}, got {model.padding!r}"
    if model.padding == "masked" and model.task != "classification":
        yield f"expected padding=masked in a classification alone, got a {model.task}"
    known: set[str] = set()
    yield from _signal(model.input.out)
    yield from _input(model)
    known.add(model.input.out.name)
    for op in model.ops:
        yield from _signal(op.out)
        yield from (
            f"{op.out.name} reads {name}, which nothing wrote"
            for name in o.inputs_of(op)
            if name not in known
        )
        if op.out.name in known:
            yield f"two signals are called {op.out.name}"
        known.add(op.out.name)
    yield from _pooling(model)


def _pooling(model: IntegerModel) -> Iterator[str]:
    pools = [op for op in model.ops if isinstance(op, o.POOLS)]
    expected = 1 if model.task == "classification" else 0
    if len(pools) != expected:
        yield f"expected {expected} pooling ops in a {model.task} model, got {len(pools)}"
    elif pools:
        early = {model.input.out.name, *(op.out.name for op in model.step_ops)}
        for op in model.final_ops[1:]:
            if early.intersection(o.inputs_of(op)):
                yield f"{op.out.name} comes after the pool but reads a signal of every step"
            if not isinstance(op, (o.Dense, o.Table, o.QGelu, o.Add, o.Multiply)):
                yield f"{op.out.name}: an op of kind {op.kind} cannot come after the pool"


def _signal(s: Signal) -> Iterator[str]:
    if not 1 <= s.bits <= MAX_SIGNAL_BITS:
        yield f"{s.name}: expected 1 to {MAX_SIGNAL_BITS} bits, got {s.bits}"
    if not 1 <= s.channels <= MAX_CHANNELS:
        yield f"{s.name}: expected 1 to {MAX_CHANNELS} channels, got {s.channels}"


def _input(model: IntegerModel) -> Iterator[str]:
    q = model.input
    if q.source in ("uint8", "int16"):
        d = q.out.channels
        if len(q.M) != d or len(q.offset) != d:
            yield f"input: expected {d} multipliers and offsets, got {len(q.M)} and {len(q.offset)}"
        limits = all(0 <= abs(m) < 2**31 for m in q.M) and all(abs(b) < 2**61 for b in q.offset)
        if not limits or not 1 <= q.shift <= 62:
            yield "input: expected |M| < 2^31, |offset| < 2^61 and a shift of 1 to 62"
    elif q.M or q.offset:
        yield f"input: a source of {q.source} has no multipliers"
    if q.source == "token" and (q.out.channels != 1 or q.out.signed):
        yield "input: tokens are one unsigned channel"


def _description(model: IntegerModel) -> Iterator[str]:
    """Names and scales are looked up by the number of a class, an output or a channel: there is one for each."""
    d, answers, channels = model.description, model.output.channels, model.input.out.channels
    classification = model.task == "classification"
    counts = {
        "class names": (d.classes, answers if classification else 0),
        "units": (d.units, 0 if classification else answers),
        "channel names": (d.channels, channels),
        "scales": (d.scale or None, channels),
        "offsets": (d.offset or None, channels),
    }
    for what, (given, count) in counts.items():
        if given is not None and (count == 0 or len(given) != count):
            expected = f"{count} {what} or none" if count else f"no {what} in a {model.task} model"
            yield f"description: expected {expected}, got {len(given)}"
    if bool(d.scale) != bool(d.offset):
        yield f"description: expected scales and offsets or neither, got {len(d.scale)} and {len(d.offset)}"


def _shapes(op: Op, signals: Signals) -> Iterator[str]:
    if isinstance(op, o.Dense) and op.biases not in (0, op.outputs):
        yield f"expected 0 or {op.outputs} biases, got {op.biases}"
    if isinstance(op, o.Output) and op.x_reverse is not None and op.inputs % 2:
        yield f"expected as many inputs from both directions, got {op.inputs}"
    for name, layout in o.layouts(op).items():
        array, shape = getattr(op, name), o.shape_of(op, layout)
        dtype = o.dtype_of(op, layout)
        if array.shape != shape or array.dtype != dtype:
            yield f"expected {name} of shape {shape} {dtype}, got {array.shape} {array.dtype}"
    for name, expected in _channels(op).items():
        if (got := signals[name].channels) != expected:
            yield f"expected {expected} channels in {name}, got {got}"


def _channels(op: Op) -> dict[str, int]:
    """Channels that an op expects of the signals it touches."""
    match op:
        case o.Dense():
            return {op.x: op.inputs, op.out.name: op.outputs}
        case o.Embedding():
            return {op.out.name: op.outputs}
        case o.Affine() | o.LayerNorm():
            return {op.x: op.channels, op.out.name: op.channels}
        case o.Recurrence() | o.Shift():
            return {op.x: 2 * op.modes, op.out.name: 2 * op.modes}
        case o.Output():
            states = [s for s in (op.x, op.x_reverse) if s is not None]
            return {s: op.inputs // len(states) for s in states} | {op.u: op.outputs, op.out.name: op.outputs}
        case _:
            return {name: op.out.channels for name in o.inputs_of(op)}


# -- rules of each op: constants in range, sums below 2^31 ---------------------------------------------------


def _dense(op: o.Dense, signals: Signals) -> Iterator[str]:
    yield from _codes(op.weight, op.bits, "weight")
    yield from _multiplier(op.M, op.shift)
    bias = _size(op.bias) if op.biases else 0
    yield from _sum(np.abs(op.weight.astype(np.int64)).sum(axis=1) * _bound(signals[op.x]) + bias)


def _embedding(op: o.Embedding, signals: Signals) -> Iterator[str]:
    x = signals[op.x]
    if x.channels != 1 or x.signed or op.tokens < 1:
        yield f"expected one unsigned channel in {op.x} and at least one token"
    yield from _within(op.table, op.out, "table")


def _affine(op: o.Affine, signals: Signals) -> Iterator[str]:
    yield from _affine_sum(op, _bound(signals[op.x]))


def _layer_norm(op: o.LayerNorm, signals: Signals) -> Iterator[str]:
    if op.channels * _bound(signals[op.x]) > 2**29:
        yield f"{op.channels} channels of {signals[op.x].bits} bits are too many: expected a product below 2^29"
    yield from _affine_sum(op, 2**NORM_BITS - 1)


def _affine_sum(op: Any, bound: int) -> Iterator[str]:
    if np.any(op.shift < 1) or np.any(op.shift > 30):
        yield f"expected shifts of 1 to 30, got {op.shift.min()} to {op.shift.max()}"
        return
    if np.any(op.M == -(2**15)):
        yield f"expected M of -32767 to 32767, got {-(2**15)}"
    half = np.int64(1) << (op.shift.astype(np.int64) - 1)
    yield from _sum(_size(op.M) * bound + _size(op.offset) + half)


def _recurrence(op: o.Recurrence, signals: Signals) -> Iterator[str]:
    x = signals[op.x]
    if not x.signed or not op.out.signed or x.bits != op.out.bits:
        yield "expected the state and what is added to it in the same signed format"
    yield from _codes(np.stack([op.re, op.im]), op.bits, "Lambda-bar")
    if op.M == 1:
        if not 1 <= op.shift <= 30:
            yield f"expected a shift of 1 to 30, got {op.shift}"
            return
        half = 1 << (op.shift - 1)
    else:
        yield from _multiplier(np.asarray([op.M]), np.asarray([op.shift]))
        half = 0
    yield from _sum((_size(op.re) + _size(op.im)) * _bound(op.out) + half)


def _shift(op: o.Shift, signals: Signals) -> Iterator[str]:
    if np.any(np.abs(op.shift.astype(np.int64)) > 15):
        yield f"expected shifts of -15 to 15, got {op.shift.min()} to {op.shift.max()}"


def _output(op: o.Output, signals: Signals) -> Iterator[str]:
    yield from _codes(op.C, op.bits, "C")
    yield from _multiplier(op.M, op.shift)
    yield from _multiplier(op.D_M, op.D_shift)
    bounds = [_bound(signals[s]) for s in (op.x, op.x_reverse) if s is not None]
    yield from _sum(np.abs(op.C.astype(np.int64)).sum(axis=1) * max(bounds) + DIRECT_LIMIT)


def _table(op: o.Table, signals: Signals) -> Iterator[str]:
    x = signals[op.x]
    if x.bits > 8:
        yield f"expected at most 8 bits in {op.x}, got {x.bits}"
    if op.entries != x.high - x.low + 1:
        yield f"expected {x.high - x.low + 1} entries, got {op.entries}"
    yield from _within(op.table, op.out, "table")


def _qgelu(op: o.QGelu, signals: Signals) -> Iterator[str]:
    if not 0 < op.offset <= 2**15 or not -15 <= op.shift <= 30:
        yield f"expected an offset of 1 to 2^15 and a shift of -15 to 30, got {op.offset} and {op.shift}"
    else:
        yield from _sum(np.asarray([_shifted(_bound(signals[op.x]) * 2 * op.offset, op.shift)]))


def _hard_sigmoid(op: o.HardSigmoid, signals: Signals) -> Iterator[str]:
    if not 0 < op.offset <= 2**28:
        yield f"expected an offset of 1 to 2^28, got {op.offset}"
    yield from _multiplier(np.asarray([op.M]), np.asarray([op.shift]))


def _multiply(op: o.Multiply, signals: Signals) -> Iterator[str]:
    if not -15 <= op.shift <= 30:
        yield f"expected a shift of -15 to 30, got {op.shift}"
        return
    product = _bound(signals[op.x]) * _bound(signals[op.y])
    yield from _sum(np.asarray([_shifted(product, op.shift)]))


def _add(op: o.Add, signals: Signals) -> Iterator[str]:
    if not -15 <= op.shift <= 30:
        yield f"expected a shift of -15 to 30, got {op.shift}"
        return
    yield from _sum(np.asarray([_bound(signals[op.x]) + _shifted(_bound(signals[op.y]), op.shift)]))


def _pool(op: Any, signals: Signals) -> Iterator[str]:
    x = signals[op.x]
    if (x.bits, x.signed) != (op.out.bits, op.out.signed):
        yield f"expected the format of {op.x}, which is pooled"


_RULES: dict[type[Op], Callable[[Any, Signals], Iterator[str]]] = {
    o.Dense: _dense,
    o.Embedding: _embedding,
    o.Affine: _affine,
    o.LayerNorm: _layer_norm,
    o.Recurrence: _recurrence,
    o.Shift: _shift,
    o.Output: _output,
    o.Table: _table,
    o.QGelu: _qgelu,
    o.HardSigmoid: _hard_sigmoid,
    o.Multiply: _multiply,
    o.Add: _add,
    o.MeanPool: _pool,
    o.LastPool: _pool,
}


def _bound(s: Signal) -> int:
    return s.high


def _size(array: np.ndarray) -> np.ndarray:
    return np.abs(array.astype(np.int64))


def _shifted(bound: int, shift: int) -> int:
    """Largest magnitude on the way of `shift`: with the half added, or after the shift to the left."""
    return bound + (1 << (shift - 1)) if shift > 0 else bound << -shift


def _sum(worst: np.ndarray) -> Iterator[str]:
    if int(np.max(worst)) > INT32:
        yield f"a sum may reach {int(np.max(worst))}, expected at most {INT32}; use fewer bits or narrower layers"


def _codes(array: np.ndarray, bits: int, what: str) -> Iterator[str]:
    limit = 16 if what == "Lambda-bar" else 8
    if not 1 <= bits <= limit:
        yield f"expected {what} of 1 to {limit} bits, got {bits}"
        return
    high = max(2 ** (bits - 1) - 1, 1)
    if np.any(np.abs(array.astype(np.int64)) > high):
        yield f"{what} has codes beyond {high}, the largest of {bits} bits"
    elif bits == 1 and np.any(array == 0):
        yield f"{what} of one bit has a zero"


def _within(array: np.ndarray, out: Signal, what: str) -> Iterator[str]:
    if np.any(array.astype(np.int64) < out.low) or np.any(array.astype(np.int64) > out.high):
        yield f"{what} has codes outside {out.low} to {out.high}"


def _multiplier(M: np.ndarray, shift: np.ndarray) -> Iterator[str]:
    wide = M.astype(np.int64)
    if np.any((wide != 0) & ((wide < 2**14) | (wide >= 2**15))):
        yield "expected multipliers of 15 bits (2^14 to 2^15 - 1, or 0)"
    if np.any(shift < 1) or np.any(shift.astype(np.int64) > MAX_SHIFT):
        yield f"expected shifts of 1 to {MAX_SHIFT}, got {int(np.min(shift))} to {int(np.max(shift))}"
