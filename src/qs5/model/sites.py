"""The list of named sites of a network: every tensor whose number format may be chosen."""

from dataclasses import dataclass
from typing import Literal

from qs5.model.config import ModelConfig

Role = Literal[
    "a",  # Lambda-bar
    "b",  # B-bar
    "c",  # C
    "d",  # D
    "dense",  # weights of encoder, gate, value, head
    "ssm_act",  # activations that meet the SSM's matrices: norm output, state as read by C
    "act",  # all other activations
    "state",  # the recurrent state, and B-bar u that is added to it
    "residual",  # the residual stream and what is pooled from it
    "logits",  # the accumulator of the decoder
]


@dataclass(frozen=True)
class Site:
    """The stable name of one tensor, what it is, and its shape (letters for axes that depend on the data)."""

    name: str
    role: Role
    shape: tuple[int | str, ...]

    @property
    def is_weight(self) -> bool:
        """Weights are quantized from their own values; the rest needs calibration."""
        return self.role in ("a", "b", "c", "d", "dense")


def sites_of(c: ModelConfig) -> tuple[Site, ...]:
    """All sites in the order of the forward pass."""
    sites = [
        Site("input", "act", ("L", "B", c.d_in)),
        Site("encoder.weight", "dense", (c.d_in, c.H)),
        Site("encoder", "residual", ("L", "B", c.H)),
    ]
    for i in range(c.layers):
        sites += _layer_sites(c, f"layers.{i}")
    return (*sites, *_head_sites(c))


def _layer_sites(c: ModelConfig, name: str) -> list[Site]:
    stream = ("L", "B", c.H)
    # A pre-norm feeds the SSM; a post-norm is what the residual stream becomes.
    norm = Site(f"{name}.norm", "ssm_act" if c.prenorm else "residual", stream)
    residual = Site(f"{name}.residual", "residual", stream)
    body = _ssm_sites(c, f"{name}.ssm") + _activation_sites(c, name)
    return [norm, *body, residual] if c.prenorm else [*body, residual, norm]


def _ssm_sites(c: ModelConfig, name: str) -> list[Site]:
    packed = ("L", "B", 2 * c.modes)
    directions = ("state", "state_reverse") if c.bidirectional else ("state",)
    states = [
        site
        for d in directions
        for site in (Site(f"{name}.{d}", "state", packed), Site(f"{name}.{d}_out", "ssm_act", packed))
    ]
    return [
        Site(f"{name}.Bu.weight", "b", (c.modes, c.H, 2)),
        Site(f"{name}.Bu", "state", packed),
        Site(f"{name}.state.weight", "a", (c.modes, 2)),
        *states,
        Site(f"{name}.y.C", "c", (c.H, c.modes * len(directions), 2)),
        Site(f"{name}.y.D", "d", (c.H,)),
        Site(f"{name}.y", "act", ("L", "B", c.H)),
    ]


def _activation_sites(c: ModelConfig, name: str) -> list[Site]:
    stream = ("L", "B", c.H)
    gelu = Site(f"{name}.gelu", "act", stream)
    if c.activation == "gelu":
        return [gelu]

    def dense(layer: str) -> list[Site]:
        weight = Site(f"{name}.{layer}.weight", "dense", (c.H, c.H))
        return [weight, Site(f"{name}.{layer}", "act", stream)]

    value = dense("value") if c.activation == "full_glu" else []
    sigmoid, product = Site(f"{name}.sigmoid", "act", stream), Site(f"{name}.product", "residual", stream)
    return [gelu, *dense("gate"), sigmoid, *value, product]


def _head_sites(c: ModelConfig) -> list[Site]:
    decoder = Site("decoder.weight", "dense", (c.H, c.d_out))
    if c.head == "regression":
        return [decoder, Site("decoder", "logits", ("L", "B", c.d_out))]
    pool = Site("pool", "residual", ("B", c.H))
    logits = Site("decoder", "logits", ("B", c.d_out))
    if c.head == "classification":
        return [pool, decoder, logits]
    return [
        pool,
        Site("features", "residual", ("B", 4 * c.H)),
        Site("hidden.weight", "dense", (4 * c.H, c.H)),
        Site("hidden", "act", ("B", c.H)),
        Site("hidden_gelu", "act", ("B", c.H)),
        decoder,
        logits,
    ]
