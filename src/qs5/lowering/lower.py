"""`lower`: a calibrated model becomes an `IntegerModel`. The door between real numbers and integers."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qs5.errors import UserError
from qs5.integer import arithmetic as integers
from qs5.integer.checks import check
from qs5.integer.model import RAW_RANGES, Description, InputQuantizer, IntegerModel
from qs5.integer.ops import Dense, Embedding, Op
from qs5.integer.signals import Signal
from qs5.lowering.program import Program
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model, forward
from qs5.quantization.exact import ExactArithmetic, exact_obstacles, freeze
from qs5.quantization.grids import Grid, GridPlan
from qs5.quantization.spec import QuantSpec

DEFAULT_MAX_LENGTH = 65_536


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How the task makes real input from raw samples: real = scale raw + offset, per channel.

    dtype: of the raw samples, uint8, int16 or float32. Whole numbers are quantized by the model itself; real
    measurements by the host, as `Description.scale` and `offset` say.
    """

    dtype: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A task that is read as numbers of tokens: real = the unit vector of that number, of `width` entries.

    The encoder's product with it is a row of a table, which the integer model has in its place.
    """

    width: int


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Names that travel with the model."""

    task: str = ""
    classes: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    channels: tuple[str, ...] | None = None
    provenance: dict[str, str] = field(default_factory=dict)


def obstacles(model: S5Model, spec: QuantSpec) -> list[str]:
    """Every reason why a model cannot be lowered under a spec; none: it can."""
    reasons = []
    if spec.schedule == "parallel":
        reasons.append(
            "schedule=parallel: a parallel scan with scales that follow the data is not what a device runs; "
            "quantize with schedule=sequential"
        )
    if _masked(model.config) and model.config.head == "regression":
        reasons.append(
            "padding=masked: integer models that answer every step scan a padded batch from its end; train with "
            "--model.padding fed"
        )
    return reasons + exact_obstacles(spec, model.config)


def _masked(config: ModelConfig) -> bool:
    """Whether padding is kept from a scan that would read it."""
    return config.bidirectional and config.padding == "masked"


def lower(
    model: S5Model,
    *,
    spec: QuantSpec,
    plan: GridPlan,
    preprocessing: Preprocessing | Tokens,
    labels: Labels = Labels(),
    max_length: int = DEFAULT_MAX_LENGTH,
) -> IntegerModel:
    """The integer model of `model` on the grids of `plan`.

    Its answer is that of the exact forward pass with the constants of `frozen_arithmetic`, to the bit, at every
    site. Raises UserError with all reasons when the model has no integer form, or when a sum could overflow.
    """
    if reasons := obstacles(model, spec):
        raise UserError("cannot lower this model: " + "; ".join(reasons))
    program = Program(frozen_arithmetic(model, spec=spec, plan=plan))
    d_in = model.config.d_in
    forward(model, jnp.zeros((1, 1, d_in)), arithmetic=program)
    ops, scale, offset = tuple(program.ops), (), ()
    if isinstance(preprocessing, Tokens):
        quantizer, table = embedding(ops[0], program.grid("input"))
        ops = (table, *ops[1:])
    else:
        quantizer, scale, offset = quantize_input(
            preprocessing, program.signal("input", d_in), program.grid("input")
        )
    lowered = IntegerModel(
        task="regression" if model.config.head == "regression" else "classification",
        input=quantizer,
        ops=ops,
        max_length=max_length,
        padding="masked" if _masked(model.config) else "fed",
        description=Description(
            spec=spec.name,
            widths=spec.widths(model.config),
            scale=scale,
            offset=offset,
            **_fitting(labels, quantizer),
        ),
    )
    check(lowered)
    return lowered


def _fitting(labels: Labels, quantizer: InputQuantizer) -> dict[str, Any]:
    """The labels; without names of channels where the one channel is a token's number."""
    found = {f.name: getattr(labels, f.name) for f in dataclasses.fields(labels)}
    return found | ({"channels": None} if quantizer.source == "token" else {})


def frozen_arithmetic(model: S5Model, *, spec: QuantSpec, plan: GridPlan) -> ExactArithmetic:
    """The exact arithmetic of a spec with the integer constants of a model."""
    exact = spec.replace(exact=True)
    bits = tuple(exact.resolve(model.config).items())
    frozen = freeze(model, ExactArithmetic(spec=exact, bits=bits, plan=plan))
    return jax.tree.map(np.asarray, frozen)


def quantize_input(
    p: Preprocessing, out: Signal, grid: Grid
) -> tuple[InputQuantizer, tuple[float, ...], tuple[float, ...]]:
    """The input quantizer, and scale and offset of the host where it makes the codes.

    code = round((scale raw + offset) / step), with gain and offset as integers of one shift for all channels:
    the largest shift that keeps every |gain| below 2^31 and every |offset| below 2^61.
    """
    step = float(grid.step)
    gain = np.asarray(p.scale, np.float64) / step
    offset = np.asarray(p.offset, np.float64) / step
    if p.dtype not in RAW_RANGES:
        return InputQuantizer(source="codes", out=out), tuple(gain.tolist()), tuple(offset.tolist())
    bits = max(int(np.max(np.frexp(gain)[1])), int(np.max(np.frexp(offset)[1])) - 30)
    shift = int(np.clip(31 - bits, 1, 62))
    M = tuple(int(v) for v in np.clip(np.floor(np.ldexp(gain, shift) + 0.5), -(2**31) + 1, 2**31 - 1))
    limit = 2**61 - 1
    rounded = tuple(min(max(int(v), -limit), limit) for v in np.floor(np.ldexp(offset, shift) + 0.5).tolist())
    source = "uint8" if p.dtype == "uint8" else "int16"
    return InputQuantizer(source=source, out=out, M=M, offset=rounded, shift=shift), (), ()


def embedding(encoder: Op, grid: Grid) -> tuple[InputQuantizer, Embedding]:
    """The encoder of tokens as a table: row t is its answer to the code of 1 in channel t and of 0 in all others.

    grid: of the input, which decides what the code of 1 is.
    """
    assert isinstance(encoder, Dense), "an encoder is a product"
    f, V = grid.format, encoder.inputs
    one = min(max(math.floor(1.0 / float(grid.step) + 0.5), f.low), f.high)
    acc = one * encoder.weight.astype(np.int64).T + (encoder.bias.astype(np.int64) if encoder.biases else 0)
    out, codes = encoder.out, integers.requantize(acc, encoder.M, encoder.shift)
    table = np.clip(codes, out.low, out.high).astype(out.dtype)
    token = Signal(name="input", channels=1, bits=max(1, (V - 1).bit_length()), signed=False, exponent=None)
    quantizer = InputQuantizer(source="token", out=token)
    return quantizer, Embedding(out=out, x="input", tokens=V, outputs=encoder.outputs, table=table)


def input_differences(quantizer: InputQuantizer, p: Preprocessing, grid: Grid) -> int:
    """How many raw values, over all channels, the integers round otherwise than float32 did while training."""
    low, high = RAW_RANGES[p.dtype]
    raw = np.arange(low, high + 1)[:, None]
    M, offset = np.asarray(quantizer.M, np.int64), np.asarray(quantizer.offset, np.int64)
    mine = integers.affine(raw, M, offset, quantizer.shift)
    real = raw.astype(np.float32) * np.asarray(p.scale, np.float32) + np.asarray(p.offset, np.float32)
    theirs = np.floor(real * (1.0 / np.float32(grid.step)) + np.float32(0.5)).astype(np.int64)
    f = grid.format
    return int(np.sum(np.clip(mine, f.low, f.high) != np.clip(theirs, f.low, f.high)))
