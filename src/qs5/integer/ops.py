"""The ops of an integer model: frozen records of sizes and constants. What each computes: SPEC.md, section 4.

An op writes one signal, `out`, and reads signals by name. Arrays are constants; their type and shape are part
of the declaration below, which the file format, the checks and the printed tables all read.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from qs5.integer.errors import IntegerModelError
from qs5.integer.signals import Signal
from qs5.numerics.polar import OPERAND_BITS, LogScale, PolarCodes


@dataclass(frozen=True)
class Layout:
    """How a constant is stored: element type and shape, in names of the op's sizes.

    Two types depend on the op: "codes" are as wide as the op's field `width` says (int8 in memory, packed in a file),
    "out" is the type of the signal that the op writes.
    """

    dtype: str
    shape: tuple[str, ...]
    width: str = "bits"


def constant(dtype: str, *shape: str, width: str = "bits") -> Any:
    """A field that holds a constant array."""
    return field(metadata={"layout": Layout(dtype, shape, width)})


def derived() -> Any:
    """A field that follows from the others: not given, not in a file."""
    return field(init=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class Op:
    """What all ops share: the signal that they write."""

    kind: ClassVar[str]
    reads: ClassVar[tuple[str, ...]]
    """The fields that name signals read."""
    out: Signal


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Op):
    """out = requantize(W x + bias), one multiplier a row. SPEC 4.2."""

    kind: ClassVar[str] = "dense"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str
    inputs: int
    outputs: int
    bits: int
    """Of the weights."""
    biases: int
    """outputs, or 0 where nothing is added."""
    weight: np.ndarray = constant("codes", "outputs", "inputs")
    bias: np.ndarray = constant("int32", "biases")
    M: np.ndarray = constant("int16", "outputs")
    shift: np.ndarray = constant("uint8", "outputs")


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding(Op):
    """out = table[token]. SPEC 4.3."""

    kind: ClassVar[str] = "embedding"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str
    tokens: int
    outputs: int
    table: np.ndarray = constant("out", "tokens", "outputs")


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Op):
    """out = round((x M + offset) / 2^shift), per channel: batch norm, folded. SPEC 4.4."""

    kind: ClassVar[str] = "affine"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str
    channels: int
    M: np.ndarray = constant("int16", "channels")
    offset: np.ndarray = constant("int32", "channels")
    shift: np.ndarray = constant("uint8", "channels")


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerNorm(Op):
    """Integer layer norm: the channels of a step to mean 0 and norm 2^15, then as `Affine`. SPEC 4.5."""

    kind: ClassVar[str] = "layer_norm"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str
    channels: int
    M: np.ndarray = constant("int16", "channels")
    offset: np.ndarray = constant("int32", "channels")
    shift: np.ndarray = constant("uint8", "channels")


@dataclass(frozen=True, eq=False, kw_only=True)
class Recurrence(Op):
    """q_k = clip(rescale(A q_{k-1}) + x_k): the diagonal complex state, packed re, im. SPEC 4.6."""

    kind: ClassVar[str] = "recurrence"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str
    modes: int
    bits: int
    """Of Lambda-bar's codes."""
    M: int
    shift: int
    reverse: bool
    re: np.ndarray = constant("int16", "modes")
    im: np.ndarray = constant("int16", "modes")
    exponents: np.ndarray = constant("int8", "modes")
    """A note: the state's code q of a mode stands for q 2^exponent."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PolarRecurrence(Recurrence):
    """`Recurrence` whose Lambda-bar is stored as codes of decay and angle. SPEC 4.16.

    Raises IntegerModelError for impossible codes.
    """

    kind: ClassVar[str] = "polar_recurrence"
    decay_bits: int
    decay_mantissa: int
    decay_unit: int
    angle_bits: int
    angle_mantissa: int
    angle_unit: int
    bits: int = derived()
    M: int = derived()
    shift: int = derived()
    re: np.ndarray = derived()
    im: np.ndarray = derived()
    decays: np.ndarray = constant("codes", "modes", width="decay_bits")
    """Codes less 2^(decay_bits - 1): signed, as all packed codes are."""
    angles: np.ndarray = constant("codes", "modes", width="angle_bits")

    def __post_init__(self) -> None:
        try:
            codes = PolarCodes(
                LogScale(bits=self.decay_bits, mantissa=self.decay_mantissa, unit=self.decay_unit),
                LogScale(bits=self.angle_bits, mantissa=self.angle_mantissa, unit=self.angle_unit),
                decays=_unsigned(self.decays, self.decay_bits),
                angles=_unsigned(self.angles, self.angle_bits),
            )
            re, im = codes.operands()
        except (ValueError, IndexError) as error:
            raise IntegerModelError(f"{self.out.name}: {error}") from error
        for part in (re, im):
            part.setflags(write=False)
        values = {"bits": OPERAND_BITS, "M": 1, "shift": OPERAND_BITS - 1, "re": re, "im": im}
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _unsigned(codes: np.ndarray, bits: int) -> tuple[int, ...]:
    """Stored codes as 0 .. 2^bits - 1. Raises ValueError for others."""
    high = 2 ** (bits - 1)
    if codes.ndim != 1 or np.any(codes < -high) or np.any(codes >= high):
        raise ValueError(f"expected a row of codes of {bits} bits")
    return tuple((codes.astype(np.int64) + high).tolist())


@dataclass(frozen=True, eq=False, kw_only=True)
class Shift(Op):
    """out = clip(round(x / 2^shift)), one signed shift a mode: the state as C reads it. SPEC 4.7."""

    kind: ClassVar[str] = "shift"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str
    modes: int
    shift: np.ndarray = constant("int8", "modes")


@dataclass(frozen=True, eq=False, kw_only=True)
class Output(Op):
    """out = requantize(C x + rescale(D u)): the SSM's output. SPEC 4.8."""

    kind: ClassVar[str] = "output"
    reads: ClassVar[tuple[str, ...]] = ("x", "x_reverse", "u")
    x: str
    x_reverse: str | None
    u: str
    inputs: int
    """Codes of the state in all directions."""
    outputs: int
    bits: int
    """Of C."""
    C: np.ndarray = constant("codes", "outputs", "inputs")
    D: np.ndarray = constant("int8", "outputs")
    D_M: np.ndarray = constant("int16", "outputs")
    D_shift: np.ndarray = constant("uint8", "outputs")
    M: np.ndarray = constant("int16", "outputs")
    shift: np.ndarray = constant("uint8", "outputs")


@dataclass(frozen=True, eq=False, kw_only=True)
class Table(Op):
    """out = table[x - low(x)]. SPEC 4.9."""

    kind: ClassVar[str] = "table"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str
    function: str
    """A note: what the table was made from."""
    entries: int
    table: np.ndarray = constant("out", "entries")


@dataclass(frozen=True, eq=False, kw_only=True)
class QGelu(Op):
    """out = shift(x clip(x + offset, 0, 2 offset)), the paper's qGELU. SPEC 4.10."""

    kind: ClassVar[str] = "qgelu"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str
    offset: int
    shift: int


@dataclass(frozen=True, eq=False, kw_only=True)
class HardSigmoid(Op):
    """out = requantize(clip(x + offset, 0, 2 offset)), the paper's hard sigmoid. SPEC 4.11."""

    kind: ClassVar[str] = "hard_sigmoid"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str
    offset: int
    M: int
    shift: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Multiply(Op):
    """out = shift(x y). SPEC 4.12."""

    kind: ClassVar[str] = "multiply"
    reads: ClassVar[tuple[str, ...]] = ("x", "y")
    x: str
    y: str
    shift: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Op):
    """out = clip(x + shift(y)): the residual connection. SPEC 4.13."""

    kind: ClassVar[str] = "add"
    reads: ClassVar[tuple[str, ...]] = ("x", "y")
    x: str
    y: str
    shift: int


@dataclass(frozen=True, eq=False, kw_only=True)
class MeanPool(Op):
    """The mean over the steps so far, to nearest. SPEC 4.14."""

    kind: ClassVar[str] = "mean_pool"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str


@dataclass(frozen=True, eq=False, kw_only=True)
class LastPool(Op):
    """The last step. SPEC 4.15."""

    kind: ClassVar[str] = "last_pool"
    reads: ClassVar[tuple[str, ...]] = ("x",)
    x: str


KINDS: dict[str, type[Op]] = {
    op.kind: op
    for op in (
        Dense,
        Embedding,
        Affine,
        LayerNorm,
        Recurrence,
        Shift,
        Output,
        Table,
        QGelu,
        HardSigmoid,
        Multiply,
        Add,
        MeanPool,
        LastPool,
        PolarRecurrence,
    )
}
POOLS = (MeanPool, LastPool)


def computed_as(op: Op) -> type[Op]:
    """The kind whose arithmetic an op has: its own, but for ops that only store their constants in another way."""
    return Recurrence if isinstance(op, Recurrence) else type(op)


def layouts(op: Op | type[Op]) -> dict[str, Layout]:
    """The constants of an op in file order."""
    return {f.name: f.metadata["layout"] for f in dataclasses.fields(op) if "layout" in f.metadata}


def shape_of(op: Op, layout: Layout) -> tuple[int, ...]:
    """The sizes that a layout names, as numbers."""
    return tuple(getattr(op, size) for size in layout.shape)


def dtype_of(op: Op, layout: Layout) -> np.dtype:
    """The element type of a constant in memory."""
    if layout.dtype == "out":
        return op.out.dtype
    return np.dtype("int8" if layout.dtype == "codes" else layout.dtype)


def inputs_of(op: Op) -> tuple[str, ...]:
    """The names of the signals that an op reads."""
    names = (getattr(op, name) for name in op.reads)
    return tuple(name for name in names if name is not None)
