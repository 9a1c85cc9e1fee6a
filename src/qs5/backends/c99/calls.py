"""Each op as a call of its kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qs5.backends.c99.constants import C_TYPES, Constants
from qs5.backends.c99.plan import direct_token, weight_width
from qs5.backends.c99.text import Names
from qs5.backends.c99.weights import words_of
from qs5.integer import ops as o
from qs5.integer.model import IntegerModel


@dataclass(frozen=True)
class Writer:
    """What a call needs besides its op: the model, names of signals, and where constants go."""

    model: IntegerModel
    names: Names
    constants: Constants

    def call(self, op: o.Op) -> str:
        """One statement without indentation."""
        kernel, *arguments = _CALLS[o.computed_as(op)](self, op)
        return f"{kernel}({', '.join(map(str, arguments))});"

    def rom(self, op: o.Op, field: str) -> str:
        """The name of an op's constant."""
        return self.array(op, field, getattr(op, field))

    def array(self, op: o.Op, field: str, values: np.ndarray) -> str:
        """The name of an array in ROM that belongs to an op."""
        return self.constants.add(self.names(op.out.name, field), np.ascontiguousarray(values).reshape(-1))

    def weight(self, op: o.Dense | o.Output, field: str, values: np.ndarray) -> str:
        """The name of a matrix in ROM."""
        return self.array(op, field, words_of(values, weight_width(op, self.model)))


def _dense(w: Writer, op: o.Dense) -> tuple:
    matrix = w.weight(op, "weight", op.weight)
    bias = w.rom(op, "bias") if op.biases else "0"
    scale = (w.rom(op, "M"), w.rom(op, "shift"))
    width = weight_width(op, w.model)
    out, x = w.names(op.out.name), w.names(op.x)
    return ("qs5k_dense", out, op.outputs, x, op.inputs, matrix, width, bias, *scale, op.out.low, op.out.high)


def _output(w: Writer, op: o.Output) -> tuple:
    columns = op.inputs if op.x_reverse is None else op.inputs // 2
    C = w.weight(op, "C", op.C[:, :columns])
    C_reverse = "0" if op.x_reverse is None else w.weight(op, "C_reverse", op.C[:, columns:])
    x_reverse = "0" if op.x_reverse is None else w.names(op.x_reverse)
    states = (w.names(op.x), x_reverse, columns, C, C_reverse, weight_width(op, w.model))
    constants = [w.rom(op, field) for field in ("D", "D_M", "D_shift", "M", "shift")]
    head = ("qs5k_output", w.names(op.out.name), op.outputs)
    return (*head, *states, w.names(op.u), *constants, op.out.low, op.out.high)


def _embedding(w: Writer, op: o.Embedding) -> tuple:
    token = f"{w.names(op.x)}[0]"
    if op.x == direct_token(w.model):
        first = w.model.input.out
        token = f"qs5k_clip(raw[0], {first.low}, {first.high})"
    kernel = f"qs5k_embedding_{C_TYPES[op.table.dtype]}"
    return (kernel, w.names(op.out.name), op.outputs, token, w.rom(op, "table"), op.tokens)


def _table(w: Writer, op: o.Table) -> tuple:
    low = w.model.signals[op.x].low
    kernel = f"qs5k_table_{C_TYPES[op.table.dtype]}"
    return (kernel, w.names(op.out.name), op.out.channels, w.names(op.x), w.rom(op, "table"), low)


def _norm(w: Writer, op: o.Affine | o.LayerNorm) -> tuple:
    constants = [w.rom(op, field) for field in ("M", "offset", "shift")]
    kernel = f"qs5k_{op.kind}"
    return (kernel, w.names(op.out.name), op.channels, w.names(op.x), *constants, op.out.low, op.out.high)


def _recurrence(w: Writer, op: o.Recurrence) -> tuple:
    rotation = (w.rom(op, "re"), w.rom(op, "im"), op.M, op.shift)
    head = ("qs5k_recurrence", w.names(op.out.name), op.modes, w.names(op.x))
    return (*head, *rotation, op.out.low, op.out.high)


def _shift(w: Writer, op: o.Shift) -> tuple:
    head = ("qs5k_shift_modes", w.names(op.out.name), op.modes, w.names(op.x))
    return (*head, w.rom(op, "shift"), op.out.low, op.out.high)


def _pointwise(*fields: str) -> Callable[[Writer, Any], tuple]:
    """A kernel whose arguments are signals (strings) and numbers of the op, in that order."""

    def arguments(w: Writer, op: Any) -> tuple:
        values = (getattr(op, field) for field in fields)
        given = [w.names(v) if isinstance(v, str) else v for v in values]
        return (f"qs5k_{op.kind}", w.names(op.out.name), op.out.channels, *given, op.out.low, op.out.high)

    return arguments


_CALLS: dict[type[o.Op], Callable[[Writer, Any], tuple]] = {
    o.Dense: _dense,
    o.Embedding: _embedding,
    o.Affine: _norm,
    o.LayerNorm: _norm,
    o.Recurrence: _recurrence,
    o.Shift: _shift,
    o.Output: _output,
    o.Table: _table,
    o.QGelu: _pointwise("x", "offset", "shift"),
    o.HardSigmoid: _pointwise("x", "offset", "M", "shift"),
    o.Multiply: _pointwise("x", "y", "shift"),
    o.Add: _pointwise("x", "y", "shift"),
}
