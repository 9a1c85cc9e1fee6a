"""Sizes of the published models, and configurations that are refused."""

import functools
from typing import Any

import pytest
from tests.support import shapes_of, small_config

from qs5.errors import UserError
from qs5.model import hippo
from qs5.model.config import ModelConfig

TWO_WAY: dict[str, Any] = {"bidirectional": True}
SIZES: dict[str, dict[str, Any]] = {
    "smnist": {"d_in": 1, "d_out": 10, "layers": 4, "H": 96, "P": 128, "J": 1},
    "listops": {"d_in": 20, "d_out": 10, "layers": 8, "H": 128, "P": 16, "J": 8, "activation": "half_glu2"}
    | TWO_WAY,
    "text": {"d_in": 135, "d_out": 2, "layers": 6, "H": 256, "P": 192, "J": 12, "activation": "half_glu2"}
    | TWO_WAY,
    "retrieval": {"d_in": 98, "d_out": 2, "layers": 6, "H": 128, "P": 256, "J": 16, "head": "retrieval"}
    | TWO_WAY,
    "scifar": {"d_in": 1, "d_out": 10, "layers": 6, "H": 512, "P": 384, "J": 3} | TWO_WAY,
    "pathfinder": {"d_in": 1, "d_out": 2, "layers": 6, "H": 192, "P": 256, "J": 8} | TWO_WAY,
    "pathx": {"d_in": 1, "d_out": 2, "layers": 6, "H": 128, "P": 256, "J": 16} | TWO_WAY,
    "mackey-glass": {
        "d_in": 10,
        "d_out": 10,
        "layers": 2,
        "H": 10,
        "P": 8,
        "J": 2,
        "activation": "gelu",
        "head": "regression",
    },
}
"""Q-S5 run scripts."""


@pytest.mark.parametrize(
    ("name", "batch_norm", "layer_norm_without_bias"),
    [
        ("smnist", 138_634, 138_250),
        ("listops", 188_490, 187_466),
        ("text", 1_321_154, 1_319_618),
        ("retrieval", 772_098, 771_330),
        ("scifar", 5_133_706, 5_130_634),
        ("pathfinder", 1_113_602, 1_112_450),
        ("pathx", 694_018, 693_250),
        ("mackey-glass", 624, 604),
    ],
)
def test_parameter_counts_are_the_published_ones(
    name: str, batch_norm: int, layer_norm_without_bias: int, monkeypatch: pytest.MonkeyPatch
):
    # The same matrix in every layer of three networks, of which its eigenvalues are taken.
    monkeypatch.setattr(hippo, "hippo_n", functools.cache(hippo.hippo_n))
    config = ModelConfig(**SIZES[name])
    assert shapes_of(config).parameter_count == batch_norm
    assert shapes_of(config.replace(norm="layer")).parameter_count == batch_norm
    plain = config.replace(norm="layer", norm_bias=False)
    assert shapes_of(plain).parameter_count == layer_norm_without_bias


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"P": 9, "J": 2}, "P must be a multiple of J, got P=9, J=2"),
        ({"P": 6, "J": 2}, "P/J must be even with conj_sym, got P=6, J=2"),
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
        ({"dropout": -0.1}, "dropout must be in [0, 1), got -0.1"),
        ({"dt_min": 0.2}, "expected 0 < dt_min <= dt_max, got 0.2 and 0.1"),
        ({"dt_min": 0.0}, "expected 0 < dt_min <= dt_max, got 0.0 and 0.1"),
        ({"bn_momentum": 1.5}, "bn_momentum must be in [0, 1], got 1.5"),
        ({"step_rescale": 0.0}, "step_rescale must be above 0, got 0.0"),
        (
            {"activation": "relu"},
            "activation must be one of gelu, half_glu1, half_glu2, full_glu, got",
        ),
        ({"norm": "group"}, "norm must be one of batch, layer, got 'group'"),
        ({"discretization": "euler"}, "discretization must be one of zoh, bilinear, got 'euler'"),
        ({"c_init": "zeros"}, "c_init must be one of trunc_standard_normal, lecun_normal, complex_normal"),
        ({"pooling": "max"}, "pooling must be one of mean, last, got 'max'"),
        ({"head": "ranking"}, "head must be one of classification, retrieval, regression, got 'ranking'"),
        ({"gelu": "relu"}, "gelu must be one of gelu, qgelu, got 'relu'"),
        ({"gate": []}, "gate must be one of sigmoid, hard_sigmoid, got []"),
        ({"H": "96"}, "H must be an integer, got '96'"),
        ({"P": 8.0}, "P must be an integer, got 8.0"),
        ({"layers": True}, "layers must be an integer, got True"),
        ({"dropout": "no"}, "dropout must be a number, got 'no'"),
        ({"conj_sym": 1}, "conj_sym must be true or false, got 1"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any], sentence: str):
    with pytest.raises(UserError) as caught:
        small_config(**changes)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_named_at_once():
    with pytest.raises(UserError, match=r"P must be .*; dropout must be .*; expected 0 < dt_min"):
        small_config(P=9, J=2, dropout=2.0, dt_min=1.0)


def test_replace_checks_again():
    with pytest.raises(UserError, match="layers must be at least 1"):
        small_config().replace(layers=0)


def test_odd_blocks_are_fine_without_conjugate_symmetry():
    config = small_config(P=6, J=2, conj_sym=False)
    assert config.modes == 6
    assert shapes_of(config).layers[0].ssm.Lambda_re.shape == (6,)
    assert small_config(P=8).modes == 4
