"""`QuantSpec`: which site gets which number format. Total, frozen, printable; a rule that fits nothing is an error."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from qs5.errors import UserError
from qs5.model.config import ModelConfig
from qs5.model.sites import Role, Site, sites_of
from qs5.numerics.formats import MAX_BITS, RangeRule
from qs5.numerics.polar import MAX_CODE_BITS, MIN_CODE_BITS

Schedule = Literal["sequential", "parallel"]
Observer = Literal["minmax", "percentile", "mse"]
Form = Literal["linear", "polar"]
Rounding = Literal["auto", "nearest", "reconstructed"]
Bits = int | None
"""Bits of a format; None: float."""

RECONSTRUCTED_BELOW = 8
"""rounding=auto: from this width on rounding to nearest costs next to nothing."""
POWER_OF_TWO_FROM = 12
"""From this width on a linear Lambda-bar has the step 2^-(bits-1): below it the clip at 1 - 2^-(bits-1) would show."""


@dataclass(frozen=True, kw_only=True)
class QuantSpec:
    """The precision configuration of a network, by component (the letters of Q-S5 section 3).

    | field   | what                                                   | role of the sites |
    |---------|--------------------------------------------------------|-------------------|
    | a       | Lambda-bar                                             | a                 |
    | b, c, d | B-bar, C, D                                            | b, c, d           |
    | dense   | encoder, decoder, gate (the paper's "non-SSM" weights) | dense             |
    | ssm_act | activations that meet the SSM's matrices               | ssm_act           |
    | act     | all other activations                                  | act               |
    | state   | the stored recurrent state (sequential only)           | state             |
    | residual| residual stream, pooled features, logits (sequential only) | residual, logits |

    schedule "parallel" is the paper: dynamic per-tensor scales, fake-quantization inside the associative
    scan; state and residual stay float. "sequential" is deployable: static scales from calibration,
    weights per output channel, the state re-quantized at every step.

    Raises UserError for impossible widths.
    """

    name: str = "custom"
    a: Bits = 16
    b: Bits = 8
    c: Bits = 8
    d: Bits = 8
    dense: Bits = 8
    ssm_act: Bits = 8
    act: Bits = 8
    state: Bits = 16
    residual: Bits = 16
    schedule: Schedule = "sequential"
    range_rule: RangeRule = "paper"
    form: Form = "linear"
    """How Lambda-bar is coded. linear (the paper): `a` bits for the real and `a` for the imaginary part, on one grid.
    polar (sequential only): `a` bits for the decay and `a` for the angle, of modes sorted by angle; see
    `qs5.numerics.polar`. Both take 2 `a` bits a mode."""
    observer: Observer = "mse"
    """How static scales are chosen from the calibration set."""
    rounding: Rounding = "auto"
    """How PTQ, and QAFT at its start, find the codes of weights (sequential only). nearest: each weight by itself.
    reconstructed: matrices that answer as the float ones do, see `qs5.quantization.reconstruction`. auto:
    reconstructed where weights have fewer bits than 8, or a linear Lambda-bar fewer than 12."""
    quantized_backward: bool = False
    """Quantize the backward pass too, as the paper's code does (parallel only)."""
    quantized_norm: bool = True
    """Quantize the product in layer norm (parallel only; false: the paper's `W8A8*` and its operator ablations)."""
    exact: bool = False
    """Compute the forward pass in integers, to the bit of the integer model (sequential only)."""
    overrides: tuple[tuple[str, Bits], ...] = ()
    """(site pattern, bits) pairs, later ones win: ("layers.0.*.weight", 4)."""

    def __post_init__(self) -> None:
        for field in (*_COMPONENTS, *(pattern for pattern, _ in self.overrides)):
            bits = getattr(self, field) if field in _COMPONENTS else dict(self.overrides)[field]
            if bits is not None and not 1 <= bits <= MAX_BITS:
                raise UserError(
                    f"spec {self.name}: expected 1 to {MAX_BITS} bits or float for {field}, got {bits}"
                )
        if self.quantized_backward and self.schedule == "sequential":
            raise UserError(
                "a quantized backward pass belongs to schedule=parallel; the sequential one is float"
            )
        if not self.quantized_norm and self.schedule == "sequential":
            raise UserError(
                "a float layer norm belongs to schedule=parallel; here norms follow their site's bits"
            )
        if self.rounding == "reconstructed" and (self.schedule, self.range_rule) != ("sequential", "paper"):
            raise UserError(
                "rounding=reconstructed belongs to schedule=sequential and range_rule=paper, whose steps can be found "
                "again in the weights"
            )
        if self.form == "polar":
            self._check_polar()
        if self.exact and self.schedule == "parallel":
            raise UserError(
                "exact integers belong to schedule=sequential; a parallel scan is not what a device runs"
            )

    def _check_polar(self) -> None:
        if self.schedule == "parallel":
            raise UserError("form=polar belongs to schedule=sequential; the paper's scan has linear codes")
        widths = [self.a, *(bits for pattern, bits in self.overrides if pattern.endswith("state.weight"))]
        if wrong := [
            _show(bits) for bits in widths if bits is None or not MIN_CODE_BITS <= bits <= MAX_CODE_BITS
        ]:
            raise UserError(
                f"spec {self.name}: expected a of {MIN_CODE_BITS} to {MAX_CODE_BITS} bits with form=polar (for "
                f"decay and angle each), got {', '.join(wrong)}"
            )

    def bits_of(self, site: Site) -> Bits:
        """Bits of a site: the last override whose pattern fits, else its component's."""
        for pattern, bits in reversed(self.overrides):
            if fnmatchcase(site.name, pattern):
                return bits
        return getattr(self, _COMPONENT_OF_ROLE[site.role])

    def resolve(self, config: ModelConfig) -> dict[str, Bits]:
        """Bits of every site of a network. Raises UserError when an override fits no site."""
        sites = sites_of(config)
        for pattern, _ in self.overrides:
            if not any(fnmatchcase(site.name, pattern) for site in sites):
                raise UserError(
                    f"spec {self.name}: the rule {pattern!r} fits no site; `qs5 inspect` lists them"
                )
        return {site.name: self.bits_of(site) for site in sites}

    @property
    def reconstructs(self) -> bool:
        """Whether codes of weights come from a reconstruction, what `rounding` says or leaves to the widths."""
        if self.rounding != "auto":
            return self.rounding == "reconstructed"
        coarse = {"a": RECONSTRUCTED_BELOW if self.form == "polar" else POWER_OF_TWO_FROM}
        widths = {field: getattr(self, field) for field in ("a", "b", "c", "d", "dense")}
        few = any(b is not None and b < coarse.get(f, RECONSTRUCTED_BELOW) for f, b in widths.items())
        return few and (self.schedule, self.range_rule) == ("sequential", "paper")

    def replace(self, **changes: object) -> "QuantSpec":
        """A copy with some fields changed (checked again)."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def widths(self) -> str:
        """Every width, for tables: no name hides one."""
        shown = _COMPONENTS if self.schedule == "sequential" else _COMPONENTS[:7]
        form = {"a": f"a{_show(self.a)}+{_show(self.a)}-polar"} if self.form == "polar" else {}
        components = [form.get(field, f"{field}{_show(getattr(self, field))}") for field in shown]
        return " ".join([*components, *(f"{pattern}={_show(bits)}" for pattern, bits in self.overrides)])


_COMPONENTS = ("a", "b", "c", "d", "dense", "ssm_act", "act", "state", "residual")
_COMPONENT_OF_ROLE: dict[Role, str] = {
    **{field: field for field in _COMPONENTS},  # type: ignore[dict-item]
    "logits": "residual",
}


def _show(bits: Bits) -> str:
    return "f" if bits is None else str(bits)


def _paper(a: int, bcd: int, dense: int, ssm_act: int, act: int) -> dict[str, int]:
    return {"a": a, "b": bcd, "c": bcd, "d": bcd, "dense": dense, "ssm_act": ssm_act, "act": act}


PRESETS: dict[str, dict[str, int]] = {
    "W8A8Abar16": _paper(16, 8, 8, 8, 8),
    "W8A8": _paper(8, 8, 8, 8, 8),
    "W4A8SSM8": _paper(8, 8, 4, 8, 8),
    "W4A8Abar8": _paper(8, 4, 4, 8, 8),
    "W4A8": _paper(4, 4, 4, 8, 8),
    "W2A8SSM8": _paper(8, 8, 2, 8, 8),
    "W2A8Abar8": _paper(8, 2, 2, 8, 8),
    "W2A8": _paper(2, 2, 2, 8, 8),
    "W8A4SSM8": _paper(8, 8, 8, 8, 4),
    "W8A4": _paper(8, 8, 8, 4, 4),
    "W8A2SSM8": _paper(8, 8, 8, 8, 2),
    "W8A2": _paper(8, 8, 8, 2, 2),
}
"""W8A8Abar16 is the deployable default; the others are the paper's (its run scripts' bits)."""

PAPER_TABLE = ("W8A8", "W4A8SSM8", "W4A8Abar8", "W4A8", "W2A8SSM8", "W2A8Abar8", "W2A8")
"""The seven configurations of the paper's tables 1, 2 and 5, in its order."""


def spec_of(text: str, **changes: object) -> QuantSpec:
    """A spec from a preset's name, or from `a=8,b=4,dense=float,...` (fields not named: as in W8A8Abar16).

    A preset may be followed by changes: `W8A8,state=8,observer=minmax`. A change may also name sites, by a pattern
    with a dot or a star in it or as `input`: `W8A8,input=16,layers.0.*.weight=4`. Raises UserError.
    """
    head, *rest = [part.strip() for part in text.split(",") if part.strip()] or [""]
    if "=" in head:
        head, rest = "", [head, *rest]
    elif head not in PRESETS:
        raise UserError(
            f"unknown spec {head!r}: expected {', '.join(PRESETS)}, or a=8,b=8,c=8,d=8,dense=8,..."
        )
    fields: dict[str, Any] = dict(PRESETS[head or "W8A8Abar16"])
    fields["name"] = text if rest else head
    sites = [part for part in rest if _names_sites(part)]
    fields["overrides"] = tuple(_parse_rule(part, text) for part in sites)
    fields.update(_parse_field(part, text) for part in rest if part not in sites)
    return QuantSpec(**{**fields, **changes})


def _names_sites(part: str) -> bool:
    key = part.partition("=")[0].strip()
    return key == "input" or "." in key or "*" in key


def _parse_rule(part: str, text: str) -> tuple[str, Bits]:
    pattern, equals, value = (piece.strip() for piece in part.partition("="))
    if not equals:
        raise UserError(f"spec {text!r}: expected bits for the sites {pattern!r}, as in {pattern}=8")
    return pattern, _parse_bits(value, text)


def _parse_field(part: str, text: str) -> tuple[str, Any]:
    key, equals, value = (piece.strip() for piece in part.partition("="))
    kinds = {f.name: f for f in dataclasses.fields(QuantSpec) if f.name not in ("name", "overrides")}
    if not equals or key not in kinds:
        raise UserError(f"spec {text!r}: expected one of {', '.join(kinds)} = value, got {part!r}")
    if key in _COMPONENTS:
        return key, _parse_bits(value, text)
    choices = _CHOICES[key]
    if value not in choices:
        raise UserError(f"spec {text!r}: expected {key}={'|'.join(choices)}, got {value!r}")
    return key, choices[value]


def _parse_bits(value: str, text: str) -> Bits:
    if value in ("float", "f", "none"):
        return None
    try:
        return int(value)
    except ValueError:
        raise UserError(f"spec {text!r}: expected bits 1 to {MAX_BITS} or float, got {value!r}") from None


_BOOLEAN = {"true": True, "false": False}
_CHOICES: dict[str, Mapping[str, Any]] = {
    "schedule": {"sequential": "sequential", "parallel": "parallel"},
    "range_rule": {"paper": "paper", "aqt": "aqt"},
    "form": {"linear": "linear", "polar": "polar"},
    "rounding": {name: name for name in get_args(Rounding)},
    "observer": {"minmax": "minmax", "percentile": "percentile", "mse": "mse"},
    "quantized_backward": _BOOLEAN,
    "quantized_norm": _BOOLEAN,
    "exact": _BOOLEAN,
}


def to_json(spec: QuantSpec) -> dict[str, Any]:
    """Plain JSON values."""
    return {**dataclasses.asdict(spec), "overrides": [list(rule) for rule in spec.overrides]}


def from_json(table: dict[str, Any]) -> QuantSpec:
    """The inverse of `to_json`."""
    overrides = tuple((str(p), b) for p, b in table.get("overrides", ()))
    return QuantSpec(**{**table, "overrides": overrides})
