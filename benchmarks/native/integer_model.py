"""An integer model of the paper's sMNIST structure with random constants, W8A8Abar16: what its speed depends on."""

from dataclasses import dataclass

import numpy as np

from benchmarks.native.parameters import LAYERS, MODES, H
from qs5.integer import ops as o
from qs5.integer.checks import check
from qs5.integer.model import InputQuantizer, IntegerModel
from qs5.integer.signals import Signal

CLASSES = 10
MACS = LAYERS * (2 * MODES * H + H * 2 * MODES + H * H)
"""Multiply-accumulates of the products of one step, encoder and decoder left out."""


@dataclass(frozen=True)
class Bits:
    """Of the weights: B and C, and the gates' matrices. Encoder and decoder have 8."""

    ssm: int = 8
    dense: int = 8


def paper_model(seed: int, bits: Bits = Bits()) -> IntegerModel:
    """Codes are spread over their formats, and some saturate."""
    rng = np.random.default_rng(seed)
    x = Signal(name="input", channels=1, bits=8, signed=False)
    source = InputQuantizer(source="uint8", out=x, M=(1,), offset=(0,), shift=1)
    ops: list[o.Op] = [_dense(rng, x, Signal(name="encoder", channels=H, bits=16), gain=64.0)]
    for i in range(LAYERS):
        ops += _layer(rng, ops[-1].out, f"layers.{i}", bits)
    pool = Signal(name="pool", channels=H, bits=16)
    ops.append(o.MeanPool(out=pool, x=ops[-1].out.name))
    ops.append(_dense(rng, pool, Signal(name="decoder", channels=CLASSES, bits=16), gain=0.2))
    model = IntegerModel(task="classification", input=source, ops=tuple(ops), max_length=2**16)
    check(model)
    return model


def _layer(rng: np.random.Generator, x: Signal, name: str, bits: Bits) -> list[o.Op]:
    def signal(last: str, channels: int, bits: int, *, signed: bool = True) -> Signal:
        return Signal(name=f"{name}.{last}", channels=channels, bits=bits, signed=signed)

    n, Bu, state = signal("norm", H, 8), signal("Bu", 2 * MODES, 16), signal("state", 2 * MODES, 16)
    read, y, g = signal("state_out", 2 * MODES, 8), signal("y", H, 8), signal("gelu", H, 8)
    gate, soft = signal("gate", H, 8), signal("sigmoid", H, 8, signed=False)
    product, residual = signal("product", H, 16), signal("residual", H, 16)
    return [
        _affine(rng, x, n),
        _dense(rng, n, Bu, gain=8.0, bits=bits.ssm, bias=False),
        _recurrence(rng, Bu, state),
        o.Shift(out=read, x=state.name, modes=MODES, shift=rng.integers(6, 9, MODES).astype(np.int8)),
        _output(rng, read, n, y, bits=bits.ssm),
        _table(y, g, "gelu"),
        _dense(rng, g, gate, gain=1.0, bits=bits.dense),
        _table(gate, soft, "sigmoid"),
        o.Multiply(out=product, x=g.name, y=soft.name, shift=3),
        o.Add(out=residual, x=x.name, y=product.name, shift=0),
    ]


def _multiplier(rng: np.random.Generator, n: int, ratio: float) -> dict[str, np.ndarray]:
    """M and shift near a ratio."""
    shift = 14 - int(np.floor(np.log2(ratio)))
    M = rng.integers(2**14, 2**15, n).astype(np.int16)
    return {"M": M, "shift": np.full(n, shift, np.uint8)}


def _weights(rng: np.random.Generator, rows: int, columns: int, bits: int = 8) -> np.ndarray:
    high = 2 ** (bits - 1) - 1
    return rng.integers(-high, high + 1, (rows, columns)).astype(np.int8)


def _deviation(bits: int) -> float:
    """Of such weights."""
    return (2**bits - 1) / np.sqrt(12)


def _dense(
    rng: np.random.Generator, x: Signal, out: Signal, *, gain: float, bits: int = 8, bias: bool = True
) -> o.Dense:
    I, O = x.channels, out.channels  # noqa: E741
    spread = _deviation(bits) * np.sqrt(I) * x.high / 2
    biases = rng.normal(0.0, spread / 4, O).astype(np.int32) if bias else np.zeros(0, np.int32)
    ratio = gain * 127.0 / spread
    return o.Dense(
        out=out, x=x.name, inputs=I, outputs=O, bits=bits, biases=len(biases), weight=_weights(rng, O, I, bits),
        bias=biases, **_multiplier(rng, O, ratio),
    )  # fmt: skip


def _affine(rng: np.random.Generator, x: Signal, out: Signal) -> o.Affine:
    M = rng.integers(2**13, 2**15, H).astype(np.int16)
    offset = rng.integers(-(2**20), 2**20, H).astype(np.int32)
    return o.Affine(out=out, x=x.name, channels=H, M=M, offset=offset, shift=np.full(H, 21, np.uint8))


def _recurrence(rng: np.random.Generator, x: Signal, out: Signal) -> o.Recurrence:
    decay, angle = rng.uniform(0.9, 0.999, MODES), rng.uniform(-np.pi, np.pi, MODES)
    re, im = (np.round(2**15 * decay * f(angle)).astype(np.int16) for f in (np.cos, np.sin))
    exponents = np.zeros(MODES, np.int8)
    return o.Recurrence(
        out=out,
        x=x.name,
        modes=MODES,
        bits=16,
        M=1,
        shift=15,
        reverse=False,
        re=re,
        im=im,
        exponents=exponents,
    )


def _output(rng: np.random.Generator, x: Signal, u: Signal, out: Signal, *, bits: int) -> o.Output:
    direct = {f"D_{name}": a for name, a in _multiplier(rng, H, 0.5).items()}
    return o.Output(
        out=out, x=x.name, x_reverse=None, u=u.name, inputs=2 * MODES, outputs=H, bits=bits,
        C=_weights(rng, H, 2 * MODES, bits), D=_weights(rng, H, 1)[:, 0], **direct,
        **_multiplier(rng, H, 0.004 * _deviation(8) / _deviation(bits)),
    )  # fmt: skip


def _table(x: Signal, out: Signal, function: str) -> o.Table:
    real = np.arange(x.low, x.high + 1) / 32.0
    soft = 0.5 * (1.0 + np.tanh(real / 2.0))
    codes = np.round(255.0 * soft if function == "sigmoid" else 32.0 * real * soft)
    table = np.clip(codes, out.low, out.high).astype(out.dtype)
    return o.Table(out=out, x=x.name, function=function, entries=len(table), table=table)
