"""The frozen description of an S5 model: every size and every choice of operator."""

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin

from qs5.errors import UserError

Activation = Literal["gelu", "half_glu1", "half_glu2", "full_glu"]
NormKind = Literal["batch", "layer"]
Pooling = Literal["mean", "last"]
Discretization = Literal["zoh", "bilinear"]
CInit = Literal["trunc_standard_normal", "lecun_normal", "complex_normal"]
Head = Literal["classification", "retrieval", "regression"]
Gelu = Literal["gelu", "qgelu"]
Gate = Literal["sigmoid", "hard_sigmoid"]
Padding = Literal["masked", "fed"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and operators of an S5 network (letters: see `qs5.notation`).

    Source: lindermanlab/S5 for the architecture; Q-S5 paper section 3.2 for `qgelu`, `hard_sigmoid` and
    the norm without bias. The operators are part of the model, not of the quantizer, so that a
    checkpoint always says which function it was trained for.

    Raises UserError when sizes do not fit together.
    """

    d_in: int
    """Input channels D."""
    d_out: int
    """Classes, or output channels of a regression."""
    layers: int = 4
    H: int = 96
    """Features of the residual stream."""
    P: int = 128
    """State size of a layer, counting both members of a conjugate pair."""
    J: int = 1
    """Number of HiPPO-N blocks that initialise Lambda; P must be a multiple of it."""
    activation: Activation = "half_glu1"
    norm: NormKind = "batch"
    prenorm: bool = True
    norm_bias: bool = True
    """Offset after the norm; the paper's quantized layer norm has none."""
    bn_momentum: float = 0.95
    dropout: float = 0.0
    bidirectional: bool = False
    conj_sym: bool = True
    clip_eigs: bool = False
    """Clip Re(Lambda) to at most -1e-4."""
    discretization: Discretization = "zoh"
    step_rescale: float = 1.0
    """Factor on the step size Delta, for inputs sampled at another rate."""
    c_init: CInit = "trunc_standard_normal"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    pooling: Pooling = "mean"
    padding: Padding = "fed"
    """What the state-space model sees past the end of a sequence shorter than the others of its batch. fed: the
    padding like any other step, as the official code has it (its reverse scan reads the padding first). masked: 0,
    so that the scan from the right starts at the last valid step, whatever the batch is padded to."""
    head: Head = "classification"
    gelu: Gelu = "gelu"
    gate: Gate = "sigmoid"

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise UserError("model configuration: " + "; ".join(problems))

    @property
    def modes(self) -> int:
        """M, the complex modes a layer stores: P/2 with conjugate symmetry, else P."""
        return self.P // 2 if self.conj_sym else self.P

    def replace(self, **changes: object) -> "ModelConfig":
        """A copy with some fields changed (checked again)."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def field_problems(options: Any) -> list[str]:
    """One sentence for every field of a dataclass whose value is not of the declared type or choice."""
    found = []
    for field in dataclasses.fields(options):
        value, kinds = getattr(options, field.name), get_args(field.type) or (field.type,)
        if get_origin(field.type) is Literal:
            fits, expected = value in kinds, f"one of {', '.join(map(str, kinds))}"
        else:
            fits = any(_is_a(value, kind) for kind in kinds)
            expected = " or ".join(_KINDS[kind] for kind in kinds)
        if not fits:
            found.append(f"{field.name} must be {expected}, got {value!r}")
    return found


_KINDS: dict[Any, str] = {int: "an integer", float: "a number", bool: "true or false", type(None): "none"}


def _is_a(value: object, kind: Any) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, {int: Integral, float: Real}.get(kind, kind))


def _problems(c: ModelConfig) -> list[str]:
    """Everything wrong with a configuration, each as one sentence."""
    if found := field_problems(c):
        return found
    sizes = {"d_in": c.d_in, "d_out": c.d_out, "layers": c.layers, "H": c.H, "P": c.P, "J": c.J}
    found = [f"{name} must be at least 1, got {value}" for name, value in sizes.items() if value < 1]
    if found:
        return found
    if c.P % c.J:
        found.append(f"P must be a multiple of J, got P={c.P}, J={c.J}")
    elif c.conj_sym and (c.P // c.J) % 2:
        found.append(f"P/J must be even with conj_sym, got P={c.P}, J={c.J}")
    if not 0.0 <= c.dropout < 1.0:
        found.append(f"dropout must be in [0, 1), got {c.dropout}")
    if not 0.0 <= c.bn_momentum <= 1.0:
        found.append(f"bn_momentum must be in [0, 1], got {c.bn_momentum}")
    if c.step_rescale <= 0.0:
        found.append(f"step_rescale must be above 0, got {c.step_rescale}")
    if not 0.0 < c.dt_min <= c.dt_max:
        found.append(f"expected 0 < dt_min <= dt_max, got {c.dt_min} and {c.dt_max}")
    return found
