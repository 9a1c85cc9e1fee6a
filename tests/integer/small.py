"""Models of one op, small enough to be broken in one place."""

import dataclasses
from typing import Any

import numpy as np

from qs5.integer import ops as o
from qs5.integer.model import Description, InputQuantizer, IntegerModel
from qs5.integer.signals import Signal


def signal(name: str, channels: int = 1, bits: int = 8, *, signed: bool = True) -> Signal:
    return Signal(name=name, channels=channels, bits=bits, signed=signed, exponent=-3)


def array(values: Any, dtype: str) -> np.ndarray:
    return np.asarray(values, dtype)


def regression(ops: list[o.Op], source: Signal, **changes: Any) -> IntegerModel:
    """A model without a pool whose raw samples are the codes of `source`."""
    quantizer = InputQuantizer(source="codes", out=source)
    fields: dict[str, Any] = {"task": "regression", "input": quantizer, "ops": tuple(ops), "max_length": 100}
    return IntegerModel(**{**fields, **changes})


def dense(x: str, out: Signal, weight: Any, *, bits: int = 8, bias: Any = None, **changes: Any) -> o.Dense:
    W = array(weight, "int8")
    n = len(W)
    fields: dict[str, Any] = {
        "out": out,
        "x": x,
        "inputs": W.shape[1],
        "outputs": n,
        "bits": bits,
        "biases": 0 if bias is None else n,
        "weight": W,
        "bias": array([] if bias is None else bias, "int32"),
        "M": array([2**14] * n, "int16"),
        "shift": array([20] * n, "uint8"),
    }
    return o.Dense(**{**fields, **changes})


def affine(x: str, out: Signal, *, M: int = 5, offset: int = 3, shift: int = 4, cls: Any = o.Affine) -> Any:
    n = out.channels
    return cls(
        out=out,
        x=x,
        channels=n,
        M=array([M] * n, "int16"),
        offset=array([offset] * n, "int32"),
        shift=array([shift] * n, "uint8"),
    )


def recurrence(x: str, out: Signal, **changes: Any) -> o.Recurrence:
    modes = out.channels // 2
    fields: dict[str, Any] = {
        "out": out,
        "x": x,
        "modes": modes,
        "bits": 8,
        "M": 1,
        "shift": 7,
        "reverse": False,
        "re": array([100] * modes, "int16"),
        "im": array([-30] * modes, "int16"),
        "exponents": array([0] * modes, "int8"),
    }
    return o.Recurrence(**{**fields, **changes})


def output(x: str, u: str, out: Signal, C: Any, **changes: Any) -> o.Output:
    weight = array(C, "int8")
    n = len(weight)
    fields: dict[str, Any] = {
        "out": out,
        "x": x,
        "x_reverse": None,
        "u": u,
        "inputs": weight.shape[1],
        "outputs": n,
        "bits": 8,
        "C": weight,
        "D": array([7] * n, "int8"),
        "D_M": array([2**14] * n, "int16"),
        "D_shift": array([14] * n, "uint8"),
        "M": array([2**14] * n, "int16"),
        "shift": array([20] * n, "uint8"),
    }
    return o.Output(**{**fields, **changes})


def classifier() -> IntegerModel:
    """Every kind of op that a model may hold at once: two channels, two modes, both directions of nothing."""
    h = signal("h", 2, 16)
    ops = [
        dense("input", h, [[3, 4], [-5, 6]], bits=4, bias=[10, -20]),
        affine("h", signal("norm", 2)),
        dense("norm", signal("Bu", 4, 16), [[1, 2], [3, -4], [5, 6], [-7, 8]], bits=5),
        recurrence("Bu", signal("state", 4, 16)),
        o.Shift(out=signal("read", 4), x="state", modes=2, shift=array([8, -1], "int8")),
        output("read", "norm", signal("y", 2), [[1, 2, 3, 4], [-4, 3, -2, 1]]),
        o.QGelu(out=signal("gelu", 2), x="y", offset=64, shift=7),
        o.HardSigmoid(out=signal("gate", 2, signed=False), x="y", offset=60, M=2**14, shift=13),
        o.Table(
            out=signal("sigmoid", 2, signed=False),
            x="y",
            function="sigmoid",
            entries=255,
            table=array(range(255), "uint8"),
        ),
        o.Multiply(out=signal("gated", 2), x="gelu", y="sigmoid", shift=8),
        o.Add(out=signal("residual", 2, 16), x="h", y="gated", shift=-2),
        affine("residual", signal("layer_norm", 2), cls=o.LayerNorm),
        o.MeanPool(out=signal("pool", 2, 16), x="residual"),
        dense("pool", signal("logits", 3, 16), [[1, 1], [0, -1], [1, 0]], bits=2, bias=[0, 0, 5]),
    ]
    quantizer = InputQuantizer(
        source="int16", out=signal("input", 2), M=(1 << 20, -(1 << 19)), offset=(0, 1 << 26), shift=26
    )
    return IntegerModel(
        task="classification",
        input=quantizer,
        ops=tuple(ops),
        max_length=1000,
        description=Description(
            task="small",
            classes=("a", "b", "ü"),
            scale=(0.5, 2.0),
            offset=(0.0, -1.25),
            provenance={"commit": "0"},
        ),
    )


def tokens() -> IntegerModel:
    """A classifier of token sequences by the last one."""
    ops: list[o.Op] = [
        o.Embedding(
            out=signal("embedding", 2),
            x="input",
            tokens=5,
            outputs=2,
            table=array(np.arange(-5, 5).reshape(5, 2), "int8"),
        ),
        o.LastPool(out=signal("pool", 2), x="embedding"),
        dense("pool", signal("logits", 2, 16), [[1, 0], [0, 1]], shift=array([14, 14], "uint8")),
    ]
    quantizer = InputQuantizer(source="token", out=signal("input", signed=False))
    return IntegerModel(task="classification", input=quantizer, ops=tuple(ops), max_length=50)


def polar() -> IntegerModel:
    """A regression of one recurrence whose Lambda-bar is coded."""
    op = o.PolarRecurrence(
        out=signal("state", 4, 16),
        x="input",
        modes=2,
        reverse=False,
        exponents=array([0, 0], "int8"),
        decay_bits=3,
        decay_mantissa=1,
        decay_unit=2**22,
        angle_bits=4,
        angle_mantissa=0,
        angle_unit=2**20,
        decays=array([-4, 3], "int8"),
        angles=array([-7, 7], "int8"),
    )
    return regression([op], signal("input", 4, 16))


def change(model: IntegerModel, name: str, /, **changes: Any) -> IntegerModel:
    """A copy whose op that writes `name` has other fields (not checked)."""
    ops = tuple(dataclasses.replace(op, **changes) if op.out.name == name else op for op in model.ops)
    return dataclasses.replace(model, ops=ops)


def change_signal(model: IntegerModel, name: str, /, **changes: Any) -> IntegerModel:
    """A copy in which the signal `name` has another format (not checked)."""
    (old,) = [op.out for op in model.ops if op.out.name == name]
    return change(model, name, out=dataclasses.replace(old, **changes))
