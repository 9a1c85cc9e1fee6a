"""Polar codes on their way into an integer model, its file and its engines."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tests.grades import graded
from tests.support import small_inputs, small_model

from qs5.backends import reference
from qs5.errors import UserError
from qs5.integer import IntegerModelError, ops as o
from qs5.integer.cost import constant_bytes
from qs5.integer.file import from_bytes, to_bytes
from qs5.integer.model import IntegerModel
from qs5.lowering.lower import Preprocessing, lower
from qs5.model.network import S5Model
from qs5.numerics.polar import PolarCodes
from qs5.quantization.build import eigenvalue_codes, plan_of, prepared, static_arithmetic
from qs5.quantization.calibration import calibrate, plan_grids
from qs5.quantization.grids import GridPlan, plan_from_json
from qs5.quantization.spec import QuantSpec, spec_of

REAL = Preprocessing(dtype="float32", scale=(1.0, 0.5, -2.0), offset=(0.0, 0.25, 1.0))


@functools.cache
def _planned(spec: QuantSpec) -> tuple[S5Model, GridPlan]:
    model = prepared(small_model(layers=2, P=16), spec)
    x = jnp.swapaxes(small_inputs(), 0, 1)
    return model, plan_of(model, calibrate(model, [(x, None)], data="test"), spec)


@functools.cache
def _lowered(text: str) -> tuple[IntegerModel, GridPlan]:
    model, plan = _planned(spec_of(text))
    return lower(model, spec=spec_of(text), plan=plan, preprocessing=REAL), plan


def _recurrences(model: IntegerModel) -> list[o.PolarRecurrence]:
    return [op for op in model.ops if isinstance(op, o.PolarRecurrence)]


@pytest.mark.parametrize("bits", graded([3, 2, 4, 8], quick=1, slow=3))
def test_the_codes_of_the_plan_reach_the_file(bits: int) -> None:
    model, plan = _lowered(f"W4A8,form=polar,a={bits}")
    data = to_bytes(model)
    again = from_bytes(data, source="test")
    assert to_bytes(again) == data
    for op, (_, codes) in zip(_recurrences(again), plan.eigenvalues, strict=True):
        assert isinstance(codes, PolarCodes)
        re, im = codes.operands()
        np.testing.assert_array_equal(op.re, re)
        np.testing.assert_array_equal(op.im, im)
        packed = -(-bits * op.modes // 8)
        assert constant_bytes(op) == 2 * packed + op.modes  # both codes, and a note of one byte a mode


def test_the_coded_model_answers_as_one_with_its_operands_spelled_out() -> None:
    model, _ = _lowered("W4A8,form=polar")
    names = [f.name for f in dataclasses.fields(o.Recurrence)]
    plain = tuple(
        o.Recurrence(**{n: getattr(op, n) for n in names}) if isinstance(op, o.PolarRecurrence) else op
        for op in model.ops
    )
    spelled = IntegerModel(task=model.task, input=model.input, ops=plain, max_length=model.max_length)
    assert not _recurrences(spelled) and len(_recurrences(model)) == 2
    raw = np.random.default_rng(0).integers(-100, 100, (3, 50, 3))
    first, second = (reference.engine(m).logits(raw) for m in (model, spelled))
    np.testing.assert_array_equal(first, second)


def test_codes_out_of_range_are_refused() -> None:
    model, _ = _lowered("W4A8,form=polar")
    op = _recurrences(model)[0]
    values: dict[str, Any] = {f.name: getattr(op, f.name) for f in dataclasses.fields(op) if f.init}
    wrongs: tuple[dict[str, Any], ...] = (
        {"decays": np.full(op.modes, 8, np.int8)},
        {"angles": np.full(op.modes, -9, np.int8)},
        {"decay_unit": 0},
        {"angle_mantissa": 5},
        {"angle_bits": 9},
    )
    for wrong in wrongs:
        with pytest.raises(IntegerModelError, match=op.out.name):
            o.PolarRecurrence(**values | wrong)


def test_a_plan_keeps_its_codes_in_json() -> None:
    _, plan = _planned(spec_of("W4A8,form=polar"))
    assert plan.eigenvalues
    assert plan_from_json(plan.to_json()) == plan


def test_a_plan_without_codes_is_refused() -> None:
    spec = spec_of("W4A8,form=polar")
    model = small_model(layers=1)
    x = jnp.swapaxes(small_inputs(), 0, 1)
    grids = plan_grids(calibrate(model, [(x, None)], data="test"), spec, model.config)
    with pytest.raises(UserError, match="plan_of"):
        static_arithmetic(spec, model.config, grids)


@pytest.mark.parametrize("bits", [None, 1, 16])
def test_a_rule_that_gives_one_layer_an_impossible_width_is_refused(bits: int | None) -> None:
    spec = spec_of("W4A8,form=polar").replace(overrides=(("layers.1.ssm.*", bits),))
    with pytest.raises(UserError, match=r"expected 2 to 8 bits for layers\.1\.ssm\.state\.weight"):
        eigenvalue_codes(small_model(layers=2), spec)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("W8A8Abar16,form=polar", "expected a of 2 to 8 bits with form=polar"),
        ("W4A8,form=polar,a=float", "got f"),
        ("W4A8,form=polar,a=1", "got 1"),
        ("W4A8,form=polar,schedule=parallel", "belongs to schedule=sequential"),
        ("W4A8,form=round", "expected form=linear|polar, got 'round'"),
    ],
)
def test_impossible_specs_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        spec_of(text)
    assert words in str(error.value)


def test_widths_name_the_form() -> None:
    assert spec_of("W4A8,form=polar").widths().startswith("a4+4-polar b4 c4 ")
    assert spec_of("W4A8").widths().startswith("a4 b4 c4 ")
