"""What a run's weights are stored with, from its description alone: for `qs5 report`, which imports no model."""

import math

from qs5.model.sites import Site, sites_of
from qs5.quantization.spec import COMPONENT_OF_ROLE, QuantSpec, from_json
from qs5.reports.weights import Precision, Weight
from qs5.training.run import RunInfo


def precision_of(info: RunInfo) -> Precision:
    """Every weight site with the bits that the spec gives it, rules for single sites included."""
    config = info.recipe.model
    spec = None if info.spec is None else from_json(info.spec)
    return Precision(
        weights=tuple(_weight(site, spec) for site in sites_of(config) if site.is_weight),
        widths="float" if spec is None else spec.widths(config),
    )


def _weight(site: Site, spec: QuantSpec | None) -> Weight:
    return Weight(
        site=site.name,
        component=COMPONENT_OF_ROLE[site.role],
        numbers=math.prod(int(n) for n in site.shape),
        bits=None if spec is None else spec.bits_of(site),
    )
