"""The list of sites is what the forward pass goes through, for every kind of network."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from tests.support import Recording, shapes_of, small_config

from qs5.model.network import forward
from qs5.model.sites import Site, sites_of

CONFIGS: list[dict[str, Any]] = [
    {},
    {"activation": "gelu"},
    {"activation": "half_glu2"},
    {"activation": "full_glu"},
    {"bidirectional": True},
    {"prenorm": False},
    {"norm": "layer", "norm_bias": False},
    {"conj_sym": False},
    {"pooling": "last"},
    {"head": "retrieval"},
    {"head": "regression"},
    {"head": "retrieval", "activation": "full_glu", "bidirectional": True, "prenorm": False, "P": 12, "J": 3},
    {"head": "regression", "activation": "gelu", "bidirectional": True, "conj_sym": False, "norm": "layer"},
]


def title(changes: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in changes.items()) or "default"


def recorded(changes: dict[str, Any]) -> Recording:
    """What a forward pass does, shapes only."""
    config = small_config(**changes)
    recording = Recording()
    x = jax.ShapeDtypeStruct((5, 4, config.d_in), jnp.float32)
    eqx.filter_eval_shape(lambda m, x: forward(m, x, arithmetic=recording), shapes_of(config), x)
    return recording


def fits(shape: tuple[int, ...], site: Site) -> bool:
    """Axes that depend on the data are letters."""
    same_rank = len(shape) == len(site.shape)
    return same_rank and all(isinstance(n, str) or n == m for n, m in zip(site.shape, shape, strict=True))


def is_copy(site: Site) -> bool:
    """The state as C reads it: a second format of a tensor that the float model has once."""
    return site.name.endswith("_out")


@pytest.mark.parametrize("changes", CONFIGS, ids=title)
def test_activation_sites_are_those_of_the_forward_pass_in_its_order(changes: dict[str, Any]):
    values = recorded(changes).values
    sites = [s for s in sites_of(small_config(**changes)) if not s.is_weight and not is_copy(s)]
    assert list(values) == [site.name for site in sites]
    assert all(fits(values[site.name].shape, site) for site in sites)


@pytest.mark.parametrize("changes", CONFIGS, ids=title)
def test_weight_sites_are_those_of_the_forward_pass(changes: dict[str, Any]):
    weights = {s.name: s.shape for s in sites_of(small_config(**changes)) if s.is_weight}
    assert recorded(changes).weights == weights


@pytest.mark.parametrize("changes", CONFIGS, ids=title)
def test_every_state_has_one_copy_for_the_output(changes: dict[str, Any]):
    sites = sites_of(small_config(**changes))
    assert len({site.name for site in sites}) == len(sites)
    states = [s.name for s in sites if s.name.endswith((".state", ".state_reverse"))]
    assert [s.name for s in sites if is_copy(s)] == [f"{name}_out" for name in states]
    assert len(states) == small_config(**changes).layers * (2 if changes.get("bidirectional") else 1)


def test_roles():
    """The component of the precision configuration that each kind of tensor belongs to."""
    changes = {"head": "retrieval", "activation": "full_glu", "bidirectional": True, "layers": 1}
    roles = {site.name: site.role for site in sites_of(small_config(**changes))}
    assert roles == {
        "input": "act",
        "encoder.weight": "dense",
        "encoder": "residual",
        "layers.0.norm": "ssm_act",
        "layers.0.ssm.Bu.weight": "b",
        "layers.0.ssm.Bu": "state",
        "layers.0.ssm.state.weight": "a",
        "layers.0.ssm.state": "state",
        "layers.0.ssm.state_out": "ssm_act",
        "layers.0.ssm.state_reverse": "state",
        "layers.0.ssm.state_reverse_out": "ssm_act",
        "layers.0.ssm.y.C": "c",
        "layers.0.ssm.y.D": "d",
        "layers.0.ssm.y": "act",
        "layers.0.gelu": "act",
        "layers.0.gate.weight": "dense",
        "layers.0.gate": "act",
        "layers.0.sigmoid": "act",
        "layers.0.value.weight": "dense",
        "layers.0.value": "act",
        "layers.0.product": "residual",
        "layers.0.residual": "residual",
        "pool": "residual",
        "features": "residual",
        "hidden.weight": "dense",
        "hidden": "act",
        "hidden_gelu": "act",
        "decoder.weight": "dense",
        "decoder": "logits",
    }
