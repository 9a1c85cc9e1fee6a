"""What the figures show of the code itself: the wiring of a network's sites, qGELU at a few bits."""

import functools

import jax.numpy as jnp
import numpy as np

from qs5.model.arithmetic import Signal
from qs5.model.config import ModelConfig
from qs5.model.operators import gelu, qgelu
from qs5.model.sites import Site, sites_of
from qs5.model.wiring import Operation, wiring_of
from qs5.quantization.dynamic import DynamicArithmetic
from qs5.quantization.spec import spec_of
from qs5.reports.figures.architecture import Node

BITS = (8, 6, 4)
RULES = ("paper", "aqt")
RANGE = 4.0


def nodes_of(config: ModelConfig) -> list[Node]:
    """Every site of a network with one layer (more are alike), in the order of the forward pass."""
    one = config.replace(layers=1)
    sites = {site.name: site for site in sites_of(one)}
    operations = wiring_of(one)
    weights = {
        op.site: [s for s in sites.values() if s.is_weight and _owner(s) == op.site] for op in operations
    }
    nodes: list[Node] = []
    copies: dict[str, str] = {}
    for op in operations:
        nodes.append(_node(op, sites[op.site], weights[op.site], copies))
        # C reads a copy of the state with a format of its own.
        copy = f"{op.site}_out"
        if copy in sites:
            read = Operation(copy, "as C reads it", (op.site,))
            nodes.append(_node(read, sites[copy], [], {}))
            copies[op.site] = copy
    return nodes


def _node(op: Operation, site: Site, weights: list[Site], copies: dict[str, str]) -> Node:
    return Node(
        site=site.name,
        operation=op.kind,
        role=site.role,
        shape=_shape(site),
        reads=tuple(copies.get(name, name) for name in op.reads),
        weights=tuple((w.name, w.role, _shape(w)) for w in weights),
    )


def _owner(weight: Site) -> str:
    """The site that a weight belongs to: what stands before its last dot."""
    return weight.name.rsplit(".", 1)[0]


def _shape(site: Site) -> str:
    return "x".join(str(n) for n in site.shape)


@functools.cache
def qgelu_curves() -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[tuple[str, int], np.ndarray]]:
    """x, GELU, qGELU and qGELU as the paper's arithmetic computes it of inputs in -4..4, by range rule and bits."""
    x = jnp.linspace(-RANGE, RANGE, 401)
    curves = {}
    for rule in RULES:
        for bits in BITS:
            spec = spec_of(f"W8A8,schedule=parallel,range_rule={rule},act={bits},ssm_act={bits}")
            arithmetic = DynamicArithmetic.of(spec, ModelConfig(d_in=1, d_out=1, layers=1))
            # One sequence of one channel: all of it shares a scale, as in the network.
            signal = Signal(x[:, None, None], "layers.0.ssm.y")
            y = arithmetic.pointwise("layers.0.gelu", "qgelu", signal).value
            curves[rule, bits] = np.asarray(y[:, 0, 0])
    return np.asarray(x), np.asarray(gelu(x)), np.asarray(qgelu(x)), curves
