"""What may be chosen: the widths of every weight site, of groups of activations, and the form of Lambda-bar."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from qs5.model.config import ModelConfig
from qs5.model.sites import Site, sites_of
from qs5.quantization.spec import COMPONENT_OF_ROLE, Form, QuantSpec

WEIGHT_WIDTHS = (8, 6, 5, 4, 3, 2, 1)
EIGENVALUE_WIDTHS: dict[Form, tuple[int, ...]] = {
    "polar": (8, 6, 5, 4, 3, 2),
    "linear": (16, 12, 10, 8, 6, 4),
}
"""Widest first: the first ones are those of the reference, which is nearest to the float model."""
ACTIVATION_WIDTHS = (8, 7, 6, 5, 4)
STATE_WIDTHS = (16, 12, 8)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Activation sites that share a width, by pattern; widest first."""

    name: str
    patterns: tuple[str, ...]
    widths: tuple[int, ...]


GROUPS = (
    Group(name="y", patterns=("layers.*.ssm.y",), widths=ACTIVATION_WIDTHS),
    Group(name="gate", patterns=("layers.*.gate",), widths=ACTIVATION_WIDTHS),
    Group(name="norm", patterns=("layers.*.norm",), widths=ACTIVATION_WIDTHS),
    Group(
        name="state_out",
        patterns=("layers.*.ssm.state_out", "layers.*.ssm.state_reverse_out"),
        widths=ACTIVATION_WIDTHS,
    ),
    Group(name="gelu", patterns=("layers.*.gelu",), widths=ACTIVATION_WIDTHS),
    Group(
        name="state",
        patterns=("layers.*.ssm.Bu", "layers.*.ssm.state", "layers.*.ssm.state_reverse"),
        widths=STATE_WIDTHS,
    ),
)
GROUPS_OF_COST = {"bytes": ("y", "gate"), "ops": ("norm", "state_out", "gelu", "state")}
"""Which groups a cost depends on: tables have an entry a code of y and of the gate; the others are operands."""
FORMS_OF_COST: dict[str, tuple[Form, ...]] = {"bytes": ("polar",), "ops": ("polar", "linear")}
"""In a file linear codes of Lambda-bar take 16 bits whatever their width (SPEC 4.6): polar ones of 8 bits are smaller
and as good, so that for bytes linear has nothing to win. As operands polar codes are 16 bits wide, linear ones less."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One point: the width of every weight site that is chosen, of every group that is, and the form.

    D keeps 8 bits: it is stored and multiplied as bytes whatever its codes fill.
    """

    form: Form
    weights: tuple[tuple[str, int], ...]
    groups: tuple[tuple[str, int], ...]

    def with_weights(self, bits: Mapping[str, int]) -> "Choice":
        """Other widths of some weight sites."""
        weights = tuple((site, bits.get(site, width)) for site, width in self.weights)
        return Choice(form=self.form, weights=weights, groups=self.groups)


def weight_sites(config: ModelConfig) -> tuple[Site, ...]:
    """The weight sites whose width is chosen, in the order of the forward pass."""
    return tuple(site for site in sites_of(config) if site.is_weight and site.role != "d")


def widths_of(site: Site, form: Form) -> tuple[int, ...]:
    """The widths of a weight site, widest first."""
    return EIGENVALUE_WIDTHS[form] if site.role == "a" else WEIGHT_WIDTHS


def groups_of(config: ModelConfig, cost: str) -> tuple[Group, ...]:
    """The groups that a cost depends on and that the network has."""
    sites = [s.name for s in sites_of(config) if s.role in ("act", "ssm_act", "state")]
    names = GROUPS_OF_COST[cost]
    return tuple(g for g in GROUPS if g.name in names and _members(g, sites))


def _members(group: Group, sites: Iterable[str]) -> list[str]:
    return [s for s in sites if any(fnmatchcase(s, p) for p in group.patterns)]


def reference(config: ModelConfig, form: Form, groups: Iterable[Group]) -> Choice:
    """Every width at its widest."""
    return Choice(
        form=form,
        weights=tuple((s.name, widths_of(s, form)[0]) for s in weight_sites(config)),
        groups=tuple((g.name, g.widths[0]) for g in groups),
    )


def spec_of_choice(choice: Choice, config: ModelConfig, *, name: str) -> QuantSpec:
    """The spec: the commonest width of each component, and a rule for every site that differs.

    Weights are rounded to nearest: reconstructing them would take the better part of a minute a candidate.
    """
    given = dict(choice.weights)
    widths: dict[str, int] = {}
    rules: list[tuple[str, int | None]] = []
    for component in ("a", "b", "c", "dense"):
        sites = [s.name for s in weight_sites(config) if COMPONENT_OF_ROLE[s.role] == component]
        widths[component] = Counter(given[s] for s in sites).most_common(1)[0][0]
        rules += [(s, given[s]) for s in sites if given[s] != widths[component]]
    start = QuantSpec(name=name, form=choice.form, rounding="nearest", a=widths.pop("a"))
    return start.replace(**widths, overrides=(*rules, *_group_rules(choice, config)))


def _group_rules(choice: Choice, config: ModelConfig) -> list[tuple[str, int | None]]:
    """One rule a pattern, where the width is not the usual one."""
    sites = [s.name for s in sites_of(config)]
    groups = {g.name: g for g in GROUPS}
    return [
        (pattern, bits)
        for name, bits in choice.groups
        if bits != groups[name].widths[0]
        for pattern in groups[name].patterns
        if any(fnmatchcase(site, pattern) for site in sites)
    ]
