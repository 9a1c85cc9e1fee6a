"""QuantSpec: presets by the paper's names, specs by hand, totality, refusals."""

import json

import pytest
from tests.support import small_config

from qs5.errors import UserError
from qs5.model.sites import sites_of
from qs5.quantization.spec import PAPER_TABLE, PRESETS, QuantSpec, from_json, spec_of, to_json

PAPER = {
    "W8A8": (8, 8, 8, 8, 8),
    "W4A8SSM8": (8, 8, 4, 8, 8),
    "W4A8Abar8": (8, 4, 4, 8, 8),
    "W4A8": (4, 4, 4, 8, 8),
    "W2A8SSM8": (8, 8, 2, 8, 8),
    "W2A8Abar8": (8, 2, 2, 8, 8),
    "W2A8": (2, 2, 2, 8, 8),
    "W8A4SSM8": (8, 8, 8, 8, 4),
    "W8A4": (8, 8, 8, 4, 4),
    "W8A2SSM8": (8, 8, 8, 8, 2),
    "W8A2": (8, 8, 8, 2, 2),
}
"""name: (a, b = c = d, dense, ssm_act, act); the run scripts of kmheckel/Q-S5."""


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_papers_names_keep_the_papers_bits_under_both_schedules(name: str, schedule: str) -> None:
    spec = spec_of(name, schedule=schedule)
    assert (spec.a, spec.b, spec.dense, spec.ssm_act, spec.act) == PAPER[name]
    assert spec.b == spec.c == spec.d


def test_every_preset_is_the_papers_or_the_default() -> None:
    assert set(PRESETS) == set(PAPER) | {"W8A8Abar16"}
    assert set(PAPER_TABLE) <= set(PAPER)
    default = spec_of("W8A8Abar16")
    assert (default.a, default.state, default.residual, default.schedule) == (16, 16, 16, "sequential")


def test_by_hand_and_by_change() -> None:
    spec = spec_of("a=8,b=4,dense=float,act=1,schedule=parallel,range_rule=aqt")
    assert (spec.a, spec.b, spec.c, spec.dense, spec.act) == (8, 4, 8, None, 1)
    assert (spec.schedule, spec.range_rule) == ("parallel", "aqt")
    changed = spec_of("W4A8,state=8,exact=true")
    assert (changed.a, changed.state, changed.exact, changed.name) == (4, 8, True, "W4A8,state=8,exact=true")


def test_sites_by_hand() -> None:
    spec = spec_of("W4A8,form=polar, input = 16,layers.0.*.weight=8,*.gelu=4")
    assert spec.overrides == (("input", 16), ("layers.0.*.weight", 8), ("*.gelu", 4)) and spec.form == "polar"
    bits = spec.resolve(small_config())
    assert (bits["input"], bits["layers.0.gate.weight"], bits["layers.1.gate.weight"]) == (16, 8, 4)
    assert bits["layers.1.gelu"] == 4 and bits["layers.1.gate"] == 8
    assert spec.widths().endswith("residual16 input=16 layers.0.*.weight=8 *.gelu=4")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("W8A8,input", "expected bits for the sites 'input', as in input=8"),
        ("W8A8,layers.0.gate=few", "expected bits 1 to 16 or float, got 'few'"),
        ("W8A8,*.gelu=17", "expected 1 to 16 bits or float for *.gelu, got 17"),
        ("W9A9", "unknown spec 'W9A9': expected W8A8Abar16"),
        ("a=17", "expected 1 to 16 bits or float for a, got 17"),
        ("a=0", "expected 1 to 16 bits or float for a, got 0"),
        ("a=wide", "expected bits 1 to 16 or float, got 'wide'"),
        ("q=8", "expected one of a, b, c, d"),
        ("W8A8,8", "expected one of a, b, c, d"),
        ("W8A8,schedule=tree", "expected schedule=sequential|parallel, got 'tree'"),
        ("W8A8,exact=true,schedule=parallel", "exact integers belong to schedule=sequential"),
        ("W8A8,quantized_backward=true", "belongs to schedule=parallel"),
        ("W8A8,quantized_norm=false", "belongs to schedule=parallel"),
        ("", "unknown spec ''"),
    ],
)
def test_refusals_say_what_to_do(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        spec_of(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_resolution_is_total_and_overrides_win() -> None:
    config = small_config(bidirectional=True, activation="full_glu")
    spec = QuantSpec(dense=8, overrides=(("layers.*.weight", 4), ("layers.1.gate.weight", None)))
    bits = spec.resolve(config)
    assert set(bits) == {site.name for site in sites_of(config)}
    assert bits["layers.0.gate.weight"] == bits["layers.0.ssm.state.weight"] == 4
    assert bits["layers.1.gate.weight"] is None
    assert bits["encoder.weight"] == 8 and bits["layers.0.ssm.state_reverse"] == 16


def test_a_rule_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match=r"'layers\.7\.gate' fits no site"):
        QuantSpec(overrides=(("layers.7.gate", 4),)).resolve(small_config())


def test_json_round_trip() -> None:
    spec = spec_of("W4A8,state=8").replace(overrides=(("layers.*", None), ("pool", 3)))
    assert from_json(json.loads(json.dumps(to_json(spec)))) == spec


def test_widths_hide_nothing() -> None:
    assert spec_of("W8A8").widths() == "a8 b8 c8 d8 dense8 ssm_act8 act8 state16 residual16"
    assert spec_of("W8A8,schedule=parallel,act=float").widths() == "a8 b8 c8 d8 dense8 ssm_act8 actf"
