"""The ops of SPEC.md, section 4, as ONNX nodes, on signals (L, B, channels) or, after the pool, (B, channels), int32.

All but the recurrence work on whole sequences; only the recurrence has a Scan over time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from qs5.backends.onnx.arithmetic import (
    affine,
    bounded,
    half,
    normalize,
    requantize,
    saturate,
    shift,
)
from qs5.backends.onnx.builder import Builder, Value, at
from qs5.integer import ops as o
from qs5.integer.checks import DIRECT_LIMIT
from qs5.integer.model import InputQuantizer, IntegerModel

BYTE_ZERO = 128
"""The byte that stands for 0 where signed codes are bytes."""


def quantize_input(b: Builder, raw: Value, q: InputQuantizer) -> Value:
    """SPEC 4.1. Raw samples of any integer type."""
    if q.source in ("codes", "token"):
        return saturate(b, b.cast(raw, "int32"), q.out, width=32)
    wide = b.cast(raw, "int64")
    M, offset = list(q.M), list(q.offset)
    return saturate(b, affine(b, wide, M=M, offset=offset, shift=q.shift, width=64), q.out, width=64)


def emit(b: Builder, op: o.Op, model: IntegerModel) -> Value:
    """The nodes of one op that is neither a recurrence nor a pool; its value has the name of its signal."""
    b.scope = op.out.name
    return _EMIT[type(op)](b, op, model)


def matmul(b: Builder, x: Value, weight: np.ndarray, *, low: int, high: int) -> Value:
    """int32 W x for codes x in low..high; weight (outputs, inputs) int8.

    Codes of 8 bits go through MatMulInteger, both sides as unsigned bytes with a zero point: on x86 without VNNI,
    onnxruntime's kernels for signed bytes add pairs of products in 16 bits and saturate. Wider codes: int32 MatMul.
    """
    transposed = np.ascontiguousarray(weight.T)
    zero = BYTE_ZERO if low < 0 else 0
    if low + zero < 0 or high + zero > 255:
        return b.node("MatMul", x, b.cast(b.constant(transposed, "int8"), "int32"))
    moved = b.node("Add", x, b.constant(zero, "int32")) if zero else x
    return b.node(
        "MatMulInteger",
        b.cast(moved, "uint8"),
        b.constant(transposed.astype(np.int64) + BYTE_ZERO, "uint8"),
        b.constant(zero, "uint8"),
        b.constant(BYTE_ZERO, "uint8"),
    )


def dense(b: Builder, op: o.Dense, model: IntegerModel) -> Value:
    """SPEC 4.2."""
    x = model.signals[op.x]
    acc = matmul(b, at(op.x), op.weight, low=x.low, high=x.high)
    if op.biases:
        acc = b.node("Add", acc, b.constant(op.bias, "int32"))
    return saturate(b, requantize(b, acc, op.M, op.shift), op.out, width=64)


def embedding(b: Builder, op: o.Embedding, _: IntegerModel) -> Value:
    """SPEC 4.3. x (L, B, 1)."""
    token = bounded(b, at(op.x), 0, op.tokens - 1, width=32)
    token = b.node("Squeeze", token, b.constant([-1], "int64"))
    row = b.node("Gather", b.constant(op.table, op.table.dtype.name), token)
    return b.node("Cast", row, to=b.element("int32"), out=at(op.out.name))


def affine_op(b: Builder, op: o.Affine, _: IntegerModel) -> Value:
    """SPEC 4.4."""
    moved = affine(b, at(op.x), M=op.M, offset=op.offset, shift=op.shift, width=32)
    return saturate(b, moved, op.out, width=32)


def layer_norm(b: Builder, op: o.LayerNorm, _: IntegerModel) -> Value:
    """SPEC 4.5."""
    n = b.cast(normalize(b, at(op.x), op.channels), "int32")
    moved = affine(b, n, M=op.M, offset=op.offset, shift=op.shift, width=32)
    return saturate(b, moved, op.out, width=32)


def shift_op(b: Builder, op: o.Shift, _: IntegerModel) -> Value:
    """SPEC 4.7."""
    return saturate(b, shift(b, at(op.x), np.concatenate([op.shift, op.shift])), op.out, width=32)


def output(b: Builder, op: o.Output, model: IntegerModel) -> Value:
    """SPEC 4.8. D and its multiplier are one constant: a product of three factors in 64 bits."""
    states = [model.signals[name] for name in (op.x, op.x_reverse) if name is not None]
    x = b.node("Concat", *(at(s.name) for s in states), axis=-1) if len(states) > 1 else at(op.x)
    acc = matmul(b, x, op.C, low=min(s.low for s in states), high=max(s.high for s in states))
    factor = op.D.astype(np.int64) * op.D_M
    direct = bounded(b, requantize(b, at(op.u), factor, op.D_shift), -DIRECT_LIMIT, DIRECT_LIMIT, width=64)
    acc = b.node("Add", acc, b.cast(direct, "int32"))
    return saturate(b, requantize(b, acc, op.M, op.shift), op.out, width=64)


def table(b: Builder, op: o.Table, model: IntegerModel) -> Value:
    """SPEC 4.9. Entries of negative codes come last: ONNX counts negative indices from the end.

    GatherElements on a flat list of codes: onnxruntime's Gather copies one entry at a time, 14 times slower.
    """
    entries, x = np.roll(op.table, model.signals[op.x].low), at(op.x)
    flat = b.node("Reshape", x, b.constant([-1], "int64"))
    found = b.node("GatherElements", b.constant(entries, "int32"), flat, axis=0)
    return b.node("Reshape", found, b.node("Shape", x), out=at(op.out.name))


def qgelu(b: Builder, op: o.QGelu, _: IntegerModel) -> Value:
    """SPEC 4.10."""
    product = b.node("Mul", at(op.x), _ramp(b, at(op.x), op.offset))
    return saturate(b, shift(b, product, op.shift), op.out, width=32)


def hard_sigmoid(b: Builder, op: o.HardSigmoid, _: IntegerModel) -> Value:
    """SPEC 4.11."""
    return saturate(b, requantize(b, _ramp(b, at(op.x), op.offset), op.M, op.shift), op.out, width=64)


def _ramp(b: Builder, x: Value, offset: int) -> Value:
    """clip(x + offset, 0, 2 offset)."""
    return bounded(b, b.node("Add", x, b.constant(offset, "int32")), 0, 2 * offset, width=32)


def multiply(b: Builder, op: o.Multiply, _: IntegerModel) -> Value:
    """SPEC 4.12."""
    return saturate(b, shift(b, b.node("Mul", at(op.x), at(op.y)), op.shift), op.out, width=32)


def add(b: Builder, op: o.Add, _: IntegerModel) -> Value:
    """SPEC 4.13."""
    return saturate(b, b.node("Add", at(op.x), shift(b, at(op.y), op.shift)), op.out, width=32)


_EMIT: dict[type[o.Op], Callable[[Builder, Any, IntegerModel], Value]] = {
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


# -- the recurrence --------------------------------------------------------------------------------------------


def recurrence(b: Builder, op: o.Recurrence, state: Value, *, kept: Value | None = None) -> Value:
    """SPEC 4.6, a Scan over x (L, B, 2 modes) from `state` (B, 2 modes), int32; returns the final state.

    kept: bool (L, B), the steps that count; the others read 0, so that a state of 0 stays 0 until the first that does.
    A form with a multiplier is the form with a shift whose coefficients are Lambda-bar M, in 64 bits.
    """
    b.scope = op.out.name
    width = 32 if op.M == 1 else 64
    x = at(op.x) if width == 32 else b.cast(at(op.x), "int64")
    if kept is not None:
        steps = b.node("Unsqueeze", kept, b.constant([2], "int64"))
        x = b.node("Where", steps, x, b.constant(0, f"int{width}"))
    # The body leaves out the last term of `floor_shift`; it comes off x once, before the steps.
    x = b.node("Sub", x, b.constant(2 ** (width - 1 - op.shift), f"int{width}"))
    start = state if width == 32 else b.cast(state, "int64")
    direction = [int(op.reverse)]
    final, states = b.nodes_of(
        "Scan",
        [start, x],
        [b.fresh("final"), b.fresh("states")],
        body=_body(op, width=width),
        num_scan_inputs=1,
        scan_input_directions=direction,
        scan_output_directions=direction,
    )
    b.node("Cast", states, to=b.element("int32"), out=at(op.out.name))
    return b.cast(final, "int32")


def _body(op: o.Recurrence, *, width: int) -> Any:
    """One step: q' = clip(floor((A q + 2^(s-1)) / 2^s) + x), q packed re, im.

    A q = [re, re] q + [-im, im] swapped(q), where swapped(q) is im, re.
    """
    b, dtype, unsigned = Builder("step"), f"int{width}", f"uint{width}"
    b.scope = op.out.name
    q, x, q_next, y = (b.fresh(name) for name in ("q", "x", "q_next", "y"))
    M = np.int64(op.M)
    straight, crossed = np.concatenate([op.re, op.re]) * M, np.concatenate([-op.im * M, op.im * M])
    re, im = b.nodes_of("Split", [q], [b.fresh("re"), b.fresh("im")], axis=-1, num_outputs=2)
    swapped = b.node("Concat", im, re, axis=-1)
    acc = b.node(
        "Add",
        b.node("Mul", q, b.constant(straight, dtype)),
        b.node("Mul", swapped, b.constant(crossed, dtype)),
    )
    bias = int(half(op.shift)) + 2 ** (width - 1)
    u = b.node("Add", b.cast(acc, unsigned), b.constant(bias, unsigned))
    u = b.node("BitShift", u, b.constant(op.shift, unsigned), direction="RIGHT")
    moved = b.node("Add", b.cast(u, dtype), x)
    bounded(b, moved, op.out.low, op.out.high, width=width, out=q_next)
    # A value cannot be two outputs of a body.
    b.node("Identity", q_next, out=y)
    shape = ["B", 2 * op.modes]
    inputs, outputs = ([b.declare(v, dtype, shape) for v in pair] for pair in ((q, x), (q_next, y)))
    return b.graph(f"{op.out.name} step", inputs=inputs, outputs=outputs)
