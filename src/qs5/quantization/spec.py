"""`QuantSpec`: which site gets which number format. Total, frozen, printable; a rule that fits nothing is an error.

A spec has one text, `W4A8,form=polar,layers.0.ssm.y.C=3` (`spec_of`, `text_of`), and one file (`spec_file`); wherever a
text is expected, the name of a file (ending in .toml) can stand.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
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
    """How PTQ finds the codes of weights (sequential only). nearest: each weight by itself.
    reconstructed: matrices that answer as the float ones do, see `qs5.quantization.reconstruction`. auto:
    reconstructed where weights have fewer bits than 8, or a linear Lambda-bar fewer than 12. Fine-tuning starts from
    reconstructed weights where they are asked for by name, from those of the float model otherwise."""
    quantized_backward: bool = False
    """Quantize the backward pass too, as the paper's code does (parallel only)."""
    quantized_norm: bool = True
    """Quantize the product in layer norm (parallel only; false: the paper's `W8A8*` and its operator ablations)."""
    exact: bool = False
    """Compute the forward pass in integers, to the bit of the integer model (sequential only)."""
    overrides: tuple[tuple[str, Bits], ...] = ()
    """(site pattern, bits) pairs, the rules of single sites; later ones win: ("layers.0.*.weight", 4)."""

    def __post_init__(self) -> None:
        self._check_rules()
        for field, bits in (*((name, getattr(self, name)) for name in COMPONENTS), *self.overrides):
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

    def _check_rules(self) -> None:
        patterns = [pattern for pattern, _ in self.overrides]
        if wrong := [p for p in patterns if not is_rule(p)]:
            raise UserError(
                f"spec {self.name}: expected rules by a site's name or a pattern such as layers.0.*, got {wrong[0]!r}; "
                "`qs5 inspect` lists the sites"
            )
        if twice := [p for i, p in enumerate(patterns) if p in patterns[:i]]:
            raise UserError(f"spec {self.name}: expected every rule once, got {twice[0]} twice")

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
        return getattr(self, COMPONENT_OF_ROLE[site.role])

    def resolve(self, config: ModelConfig) -> dict[str, Bits]:
        """Bits of every site of a network. Raises UserError when an override fits no site."""
        sites = sites_of(config)
        for pattern, _ in self.overrides:
            if not any(fnmatchcase(site.name, pattern) for site in sites):
                raise UserError(
                    f"spec {self.name}: the rule {pattern!r} fits no site; `qs5 inspect` lists them"
                )
        return {site.name: self.bits_of(site) for site in sites}

    def reconstructs(self, config: ModelConfig) -> bool:
        """Whether codes of weights come from a reconstruction: what `rounding` says, or leaves to the widths."""
        if self.rounding != "auto":
            return self.rounding == "reconstructed"
        if not config.prenorm or (self.schedule, self.range_rule) != ("sequential", "paper"):
            return False
        linear = self.form == "linear"
        limits = {"a": POWER_OF_TWO_FROM if linear else RECONSTRUCTED_BELOW}
        weights = [(self.bits_of(site), site.role) for site in sites_of(config) if site.is_weight]
        return any(b is not None and b < limits.get(role, RECONSTRUCTED_BELOW) for b, role in weights)

    def replace(self, **changes: object) -> "QuantSpec":
        """A copy with some fields changed (checked again)."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def widths(self, config: ModelConfig | None = None) -> str:
        """Every width, for tables: no name hides one.

        Where rules give the sites of a component different widths, they are listed in the order of the forward pass:
        `c4/3/3/2`. That needs the network's config; without it the rules themselves follow: `c4 layers.3.ssm.y.C=2`.
        """
        shown = COMPONENTS if self.schedule == "sequential" else COMPONENTS[:7]
        if config is None or not self.overrides:
            rules = [f"{pattern}={_show(bits)}" for pattern, bits in self.overrides]
            return " ".join([*(self._width(field, [getattr(self, field)]) for field in shown), *rules])
        sites = sites_of(config)
        found = {f: [self.bits_of(s) for s in sites if COMPONENT_OF_ROLE[s.role] == f] for f in shown}
        return " ".join(self._width(field, bits) for field, bits in found.items())

    def _width(self, field: str, bits: list[Bits]) -> str:
        """A component with its width, or with those of all its sites."""
        polar = self.form == "polar" and field == "a"
        each = [f"{_show(b)}+{_show(b)}" if polar else _show(b) for b in bits]
        return field + "/".join(each if len(set(each)) > 1 else each[:1]) + ("-polar" if polar else "")


COMPONENTS = ("a", "b", "c", "d", "dense", "ssm_act", "act", "state", "residual")
"""The fields of a spec that are widths."""
COMPONENT_OF_ROLE: dict[Role, str] = {
    **{field: field for field in COMPONENTS},  # type: ignore[dict-item]
    "logits": "residual",
}
_UNDOTTED_SITES = ("input", "encoder", "pool", "features", "hidden", "hidden_gelu", "decoder")


def is_rule(key: str) -> bool:
    """Whether a key names sites, not a field of the spec: it has a dot or a wildcard, or is a site without a dot."""
    plain = not any(c.isspace() or c in ",=\"'\\" for c in key)
    return plain and (any(c in key for c in ".*?[") or key in _UNDOTTED_SITES)


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
    """A spec from a preset's name, a file's (ending in .toml), or `a=8,b=4,dense=float,...`.

    A preset or file may be followed by changes, among them rules for single sites: `W8A8,state=8,observer=minmax`,
    `W4A8,layers.0.ssm.y.C=3`. Fields that no preset or file names are as in W8A8Abar16. Raises UserError.
    """
    head, *rest = [part.strip() for part in text.split(",") if part.strip()] or [""]
    if "=" in head:
        head, rest = "", [head, *rest]
    if head.endswith(".toml"):
        from qs5.quantization.spec_file import read_spec

        start = read_spec(Path(head))
        name = ",".join([start.name, *rest])
    elif head in PRESETS or (not head and rest):
        start, name = QuantSpec(**_preset(head)), text if rest else head
    else:
        raise UserError(
            f"unknown spec {head!r}: expected {', '.join(PRESETS)}, a file ending in .toml, or "
            "a=8,b=8,c=8,d=8,dense=8,..."
        )
    return changed(start, [_pair(part, text) for part in rest], source=f"spec {text!r}", name=name, **changes)


def _preset(name: str) -> dict[str, Any]:
    return {"name": name or "custom", **PRESETS[name or "W8A8Abar16"]}


def _pair(part: str, text: str) -> tuple[str, str]:
    key, equals, value = (piece.strip() for piece in part.partition("="))
    if not equals and is_rule(key):
        raise UserError(f"spec {text!r}: expected bits for the sites {key!r}, as in {key}=8")
    if not equals:
        raise UserError(f"spec {text!r}: expected one of {', '.join(_FIELDS)} = value, got {part!r}")
    return key, value


def changed(
    spec: QuantSpec, pairs: Sequence[tuple[str, str]], *, source: str, **changes: object
) -> QuantSpec:
    """`spec` with fields and rules set from text, (name, value) each; a rule for a pattern that has one replaces it.

    source: what errors begin with. changes: fields as they are. Raises UserError.
    """
    fields: dict[str, Any] = {}
    rules = dict(spec.overrides)
    for key, value in pairs:
        if is_rule(key):
            rules.pop(key, None)  # a later rule wins: to the end
            rules[key] = _parse_bits(value, source)
        else:
            fields[key] = _parse_field(key, value, source)
    return spec.replace(**{**fields, "overrides": tuple(rules.items()), **changes})


def _parse_field(key: str, value: str, source: str) -> Any:
    if key not in _FIELDS:
        raise UserError(
            f"{source}: expected one of {', '.join(_FIELDS)} = value, or a site's name, got {key!r}"
        )
    if key in COMPONENTS:
        return _parse_bits(value, source)
    choices = _CHOICES[key]
    if value not in choices:
        raise UserError(f"{source}: expected {key}={'|'.join(choices)}, got {value!r}")
    return choices[value]


def _parse_bits(value: str, source: str) -> Bits:
    if value in ("float", "f", "none"):
        return None
    try:
        return int(value)
    except ValueError:
        raise UserError(f"{source}: expected bits 1 to {MAX_BITS} or float, got {value!r}") from None


def text_of(spec: QuantSpec) -> str:
    """The one text of a spec, with every field that matters: `spec_of(text_of(spec))` is `spec` but for its name."""
    pairs = fields_of(spec) | {pattern: show_bits(bits) for pattern, bits in spec.overrides}
    return ",".join(f"{key}={value}" for key, value in pairs.items())


def fields_of(spec: QuantSpec) -> dict[str, str]:
    """All widths, and what else is not as usual, as text by name."""
    usual = QuantSpec()
    widths = {name: show_bits(getattr(spec, name)) for name in COMPONENTS}
    others = {name: getattr(spec, name) for name in _CHOICES if getattr(spec, name) != getattr(usual, name)}
    return widths | {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in others.items()}


def show_bits(bits: Bits) -> str:
    """Bits as a spec's text has them."""
    return "float" if bits is None else str(bits)


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


_FIELDS = (*COMPONENTS, *_CHOICES)


def to_json(spec: QuantSpec) -> dict[str, Any]:
    """Plain JSON values."""
    return {**dataclasses.asdict(spec), "overrides": [list(rule) for rule in spec.overrides]}


def from_json(table: dict[str, Any]) -> QuantSpec:
    """The inverse of `to_json`."""
    overrides = tuple((str(p), b) for p, b in table.get("overrides", ()))
    return QuantSpec(**{**table, "overrides": overrides})
