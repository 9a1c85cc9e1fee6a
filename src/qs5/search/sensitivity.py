"""How much each site hurts: the divergence of the integer model with this one site narrower than the reference.

The reference has every width at its widest. Additive model of any choice c:

    divergence(c) ~ divergence(reference of c's form) + sum over sites (divergence(reference, this site as in c)
                                                                       - divergence(reference))

It is good while the single terms are small; refinement (`refine`) measures what it misses.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from qs5.model.config import ModelConfig
from qs5.quantization.spec import Form
from qs5.search.costs import CostKind, CostModel, narrowed
from qs5.search.knapsack import CELLS, Option, solve
from qs5.search.space import FORMS_OF_COST, Choice, Group, groups_of, reference, weight_sites, widths_of

COARSE = 500
FINALISTS = 6

Divergence = Callable[[Choice], float]
"""Of a choice, on the calibration sequences."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """increase[form, site or group, bits] of the divergence over `base[form]`; 0 at the reference's width."""

    base: dict[Form, float]
    increase: dict[tuple[Form, str, int], float]

    def predicted(self, choice: Choice) -> float:
        """The additive model."""
        parts = (self.increase[choice.form, name, bits] for name, bits in (*choice.weights, *choice.groups))
        return self.base[choice.form] + sum(parts)


def points_of(config: ModelConfig, kind: CostKind) -> Iterator[tuple[str, int, Choice]]:
    """(site or group, bits, the reference with it) for everything that is measured; ("", 0, reference) first."""
    groups = groups_of(config, kind)
    for i, form in enumerate(FORMS_OF_COST[kind]):
        start = reference(config, form, groups)
        yield "", 0, start
        for site in weight_sites(config):
            # A form changes Lambda-bar alone: other sites are measured once.
            if i == 0 or site.role == "a":
                for bits in widths_of(site, form)[1:]:
                    yield site.name, bits, start.with_weights({site.name: bits})
        for group in groups if i == 0 else ():
            for bits in group.widths[1:]:
                yield group.name, bits, narrowed(start, group.name, bits)


def sensitivity(
    config: ModelConfig, kind: CostKind, divergence: Divergence, note: Callable[[str], None] = lambda _: None
) -> Sensitivity:
    """Measure every point once. note: takes a line for every site."""
    base: dict[Form, float] = {}
    measured: dict[tuple[Form, str, int], float] = {}
    for (name, form), points in itertools.groupby(points_of(config, kind), key=lambda p: (p[0], p[2].form)):
        found = {bits: divergence(choice) for _, bits, choice in points}
        if not name:
            base[form] = found[0]
            note(f"every width at its widest, {form}: divergence {base[form]:.5f}")
            continue
        measured |= {(form, name, bits): max(0.0, value - base[form]) for bits, value in found.items()}
        note(f"{name}: " + ", ".join(f"{b} bits +{measured[form, name, b]:.5f}" for b in found))
    increase = {}
    for form in FORMS_OF_COST[kind]:
        for name, widths in _named_widths(config, kind, form):
            for bits in widths:
                same = measured.get((form, name, bits), measured.get((FORMS_OF_COST[kind][0], name, bits)))
                increase[form, name, bits] = 0.0 if bits == widths[0] or same is None else same
    return Sensitivity(base=base, increase=increase)


def _named_widths(config: ModelConfig, kind: CostKind, form: Form) -> list[tuple[str, tuple[int, ...]]]:
    sites = [(site.name, widths_of(site, form)) for site in weight_sites(config)]
    return [*sites, *((g.name, g.widths) for g in groups_of(config, kind))]


def best_choice(found: Sensitivity, costs: CostModel, budget: int) -> Choice | None:
    """The choice of least predicted divergence within a budget; None where there is none.

    Over forms and widths of groups all combinations are tried; given these, cost and damage are sums over weight sites,
    and the knapsack is solved: coarsely for all of them, then finely for the `FINALISTS` best.
    """
    rated = []
    for start in _starts(costs.workshop.config, costs.kind):
        rough = _best_weights(start, found, costs, budget, cells=COARSE)
        if rough is not None:
            rated.append((found.predicted(rough), len(rated), start))
    finalists = [start for _, _, start in sorted(rated)[:FINALISTS]]
    choices = [_best_weights(start, found, costs, budget, cells=CELLS) for start in finalists]
    return min((c for c in choices if c is not None), key=found.predicted, default=None)


def _starts(config: ModelConfig, kind: CostKind) -> Iterator[Choice]:
    """The reference of every form with every combination of groups, widest first."""
    groups: Iterable[Group] = groups_of(config, kind)
    for form in FORMS_OF_COST[kind]:
        start = reference(config, form, groups)
        for widths in itertools.product(*(g.widths for g in groups)):
            names = [g.name for g in groups]
            yield dataclasses.replace(start, groups=tuple(zip(names, widths, strict=True)))


def _best_weights(
    start: Choice, found: Sensitivity, costs: CostModel, budget: int, *, cells: int
) -> Choice | None:
    sites = {s.name: widths_of(s, start.form) for s in weight_sites(costs.workshop.config)}
    items = [
        [Option(costs.site(start, site, b), found.increase[start.form, site, b]) for b in widths]
        for site, widths in sites.items()
    ]
    picked = solve(items, budget - costs.fixed(start), cells=cells)
    if picked is None:
        return None
    return start.with_weights({site: sites[site][i] for site, i in zip(sites, picked, strict=True)})
