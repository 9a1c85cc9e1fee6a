"""Lowering: what it refuses and why, what it carries, and that its input quantizer rounds as real numbers do."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from tests.support import small_inputs, small_model

from qs5.backends import reference
from qs5.errors import UserError
from qs5.integer import IntegerModelError, ops as o
from qs5.integer.checks import check
from qs5.integer.file import to_bytes
from qs5.integer.model import RAW_RANGES, InputQuantizer, IntegerModel
from qs5.integer.signals import Signal
from qs5.lowering.lower import (
    DEFAULT_MAX_LENGTH,
    Labels,
    Preprocessing,
    frozen_arithmetic,
    input_differences,
    lower,
    obstacles,
    quantize_input,
)
from qs5.model.network import S5Model
from qs5.numerics.formats import QFormat
from qs5.quantization.calibration import calibrate, plan_grids
from qs5.quantization.grids import Grid, GridPlan
from qs5.quantization.spec import QuantSpec, spec_of

SPEC = spec_of("W8A8Abar16")
REAL = Preprocessing(dtype="float32", scale=(1.0, 0.5, -2.0), offset=(0.0, 0.25, 1.0))
EMPTY = GridPlan(grids=(), data="none", examples=0)


def plan_of(model: S5Model, spec: QuantSpec) -> GridPlan:
    x = jnp.swapaxes(small_inputs(), 0, 1)
    return plan_grids(calibrate(model, [(x, None)], data="test"), spec, model.config)


@functools.cache
def prepared(**changes: Any) -> tuple[S5Model, GridPlan]:
    """A small network of one layer with its grids."""
    model = small_model(**{"layers": 1, **changes})
    return model, plan_of(model, SPEC)


def lowered(*, p: Preprocessing = REAL, model: dict[str, Any] | None = None, **options: Any) -> IntegerModel:
    net, plan = prepared(**(model or {}))
    return lower(net, spec=SPEC, plan=plan, preprocessing=p, **options)


# -- refusals --------------------------------------------------------------------------------------------------


def test_all_obstacles_are_reported_at_once() -> None:
    model = small_model(layers=1, head="retrieval")
    spec = spec_of("W8A8Abar16,schedule=parallel,act=float,dense=12,c=12")
    found = obstacles(model, spec)
    text = "; ".join(found)
    assert "schedule=parallel: a parallel scan" in found[0]
    assert any(reason.endswith("is float: give it bits") for reason in found)
    assert "encoder.weight has 12 bits: 8-bit weights at most (Lambda-bar: 16)" in found
    assert sum(".C has 12 bits" in reason for reason in found) == 1
    assert "retrieval head: products of two 16-bit features have no integer form here" in found
    with pytest.raises(UserError) as error:
        lower(model, spec=spec, plan=EMPTY, preprocessing=REAL)
    assert str(error.value) == f"cannot lower this model: {text}"
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "head", "words"),
    [
        ("W8A8Abar16,schedule=parallel", "classification", "quantize with schedule=sequential"),
        ("W8A8Abar16,residual=float", "classification", "is float: give it bits"),
        ("W8A8Abar16,state=float", "classification", "layers.0.ssm.state is float: give it bits"),
        ("W8A8Abar16,b=12", "classification", "layers.0.ssm.Bu.weight has 12 bits"),
        ("W8A8Abar16,d=9", "classification", "layers.0.ssm.y.D has 9 bits"),
        ("W8A8Abar16,act=9", "classification", "act=9: tables and gate products take 8 bits at most"),
        ("W8A8Abar16", "retrieval", "retrieval head"),
    ],
)
def test_each_obstacle_alone(text: str, head: str, words: str) -> None:
    found = obstacles(small_model(layers=1, head=head), spec_of(text))
    assert found
    assert all(words in reason or "is float" in reason for reason in found), found
    assert any(words in reason for reason in found)


def test_single_activations_are_looked_at_by_what_they_meet() -> None:
    model = small_model(layers=1)
    assert obstacles(model, spec_of("W8A8Abar16,input=16")) == []
    (found,) = obstacles(model, spec_of("W8A8Abar16,layers.0.gelu=12"))
    assert "act=12: tables and gate products take 8 bits at most" in found


def test_padding_kept_from_a_scan_is_an_obstacle_where_every_step_is_answered() -> None:
    both = {"layers": 1, "padding": "masked", "bidirectional": True}
    assert obstacles(small_model(**both), SPEC) == []
    (found,) = obstacles(small_model(**both, head="regression"), SPEC)
    assert "--model.padding fed" in found
    assert obstacles(small_model(layers=1, padding="masked", head="regression"), SPEC) == []


def test_a_deployable_model_has_no_obstacle() -> None:
    assert obstacles(small_model(layers=1), SPEC) == []


def test_a_layer_too_wide_for_32_bits_is_refused() -> None:
    """The decoder adds 1200 products of codes up to 32767 and 127."""
    model = small_model(layers=1, H=1200, P=2, activation="gelu")
    with pytest.raises(IntegerModelError) as error:
        lower(model, spec=SPEC, plan=plan_of(model, SPEC), preprocessing=REAL)
    assert "decoder: a sum may reach" in str(error.value)
    assert "expected at most 2147483647; use fewer bits or narrower layers" in str(error.value)


# -- what is carried -------------------------------------------------------------------------------------------


def test_names_and_lengths_travel_with_the_model() -> None:
    labels = Labels(
        task="small",
        classes=("a", "b", "c", "d"),
        channels=("x", "y", "z"),
        provenance={"run": "r1"},
    )
    model = lowered(labels=labels, max_length=321)
    d = model.description
    assert (model.task, model.max_length) == ("classification", 321)
    assert (d.task, d.classes, d.units, d.channels) == ("small", labels.classes, None, labels.channels)
    assert d.provenance == {"run": "r1"}
    assert (d.spec, d.widths) == (SPEC.name, SPEC.widths())
    assert lowered().max_length == DEFAULT_MAX_LENGTH
    with pytest.raises(IntegerModelError, match="expected a maximal length of 1 to 2147483647, got 0"):
        lowered(max_length=0)
    with pytest.raises(IntegerModelError, match="expected no units in a classification model, got 1"):
        lowered(labels=dataclasses.replace(labels, units=("V",)))


def test_the_host_is_told_how_to_make_codes_of_measurements() -> None:
    model = lowered()
    grid = dict(prepared()[1].grids)["input"]
    assert model.input.source == "codes"
    assert model.input.M == model.input.offset == ()
    d = model.description
    np.testing.assert_array_equal(d.scale, np.array(REAL.scale) / float(grid.step))
    np.testing.assert_array_equal(d.offset, np.array(REAL.offset) / float(grid.step))


def test_lowered_twice_gives_the_same_bytes() -> None:
    first = to_bytes(lowered())
    model = small_model(layers=1)
    again = lower(model, spec=SPEC, plan=plan_of(model, SPEC), preprocessing=REAL)
    assert to_bytes(again) == first


# -- activations -----------------------------------------------------------------------------------------------


def test_qgelu_and_hard_sigmoid_become_their_own_ops() -> None:
    choices = {"gelu": "qgelu", "gate": "hard_sigmoid", "activation": "half_glu1"}
    model = lowered(model=choices)
    assert not any(isinstance(op, o.Table) for op in model.ops)
    net, plan = prepared(**choices)
    constants = frozen_arithmetic(net, spec=SPEC, plan=plan).constants
    assert constants is not None
    kinds = {o.QGelu: reference.qgelu, o.HardSigmoid: reference.hard_sigmoid}
    found = [op for op in model.ops if type(op) in kinds]
    assert {type(op) for op in found} == set(kinds)
    for op in found:
        assert isinstance(op, (o.QGelu, o.HardSigmoid))
        x = model.signals[op.x]
        codes = np.arange(x.low, x.high + 1)
        run: Any = kinds[type(op)]
        table = np.clip(np.asarray(constants[op.out.name], np.int64), op.out.low, op.out.high)
        assert len(set(table.tolist())) > 20
        np.testing.assert_array_equal(run(op, {op.x: codes}, model), table)


def test_gelu_and_sigmoid_are_tables() -> None:
    functions = [op.function for op in lowered().ops if isinstance(op, o.Table)]
    assert sorted(functions) == ["gelu", "sigmoid"]


# -- the input quantizer ---------------------------------------------------------------------------------------

WIDE = Grid(QFormat(16), -9)
BYTE = Grid(QFormat(8), -6)


def quantizer(dtype: str, scale: float, offset: float, grid: Grid) -> tuple[InputQuantizer, Preprocessing]:
    p = Preprocessing(dtype=dtype, scale=(scale,), offset=(offset,))
    out = Signal(name="input", channels=1, bits=grid.format.bits, signed=grid.format.signed)
    q, *host = quantize_input(p, out, grid)
    assert host == [(), ()]
    return q, p


def every_raw(dtype: str) -> np.ndarray:
    low, high = RAW_RANGES[dtype]
    return np.arange(low, high + 1)


real_scales = st.floats(1e-9, 1e3).flatmap(lambda v: st.sampled_from([v, -v]))
real_offsets = st.floats(-1e5, 1e5) | st.sampled_from([0.0, 0.5, -0.5, 127.0])


@settings(max_examples=60)
@given(st.sampled_from(["uint8", "int16"]), real_scales, real_offsets, st.sampled_from([WIDE, BYTE]))
@example("uint8", 1 / 255 / 0.3081, -0.1307 / 0.3081, BYTE)  # MNIST
@example("int16", -1 / 32768, 0.0, WIDE)
@example("int16", 1e-9, 60.0, WIDE)  # an offset that is all there is
@example("int16", 2.0**-40, 1.0, WIDE)
@example("uint8", 1e3, -1e5, BYTE)
def test_input_is_rounded_as_real_numbers_are(dtype: str, scale: float, offset: float, grid: Grid) -> None:
    """For every raw value; but where the real number is nearer to a half than the gain's own rounding moves it."""
    q, _ = quantizer(dtype, scale, offset, grid)
    raw = every_raw(dtype)
    step = float(grid.step)
    v = raw * (scale / step) + offset / step
    mine = reference.quantize_input(raw[:, None], q)[:, 0]
    f = grid.format
    expected = np.clip(np.floor(v + 0.5), f.low, f.high)
    moved = (np.abs(raw) + 1) * 2.0 ** -(q.shift + 1) + 1e-12 * (1 + np.abs(v))
    near_half = np.abs(v + 0.5 - np.round(v + 0.5)) <= moved
    np.testing.assert_array_equal(mine[~near_half], expected[~near_half])
    assert np.max(np.abs(mine - expected)) <= 1
    # So this says something: little was excused at every raw value, of the terms: their sum may cancel.
    terms = np.abs(raw * (scale / step)) + abs(scale / step) + abs(offset / step) + 1
    assert np.all(moved < 2.0**-30 * terms)


@given(
    st.sampled_from(["uint8", "int16"]),
    st.lists(st.tuples(real_scales, real_offsets), min_size=1, max_size=5),
)
def test_every_channel_is_within_the_rules(dtype: str, channels: list[tuple[float, float]]) -> None:
    scale, offset = (tuple(values) for values in zip(*channels, strict=True))
    out = Signal(name="input", channels=len(channels), bits=8)
    q, _, _ = quantize_input(Preprocessing(dtype=dtype, scale=scale, offset=offset), out, BYTE)
    check(IntegerModel(task="regression", input=q, ops=(_copy("input", out),), max_length=1))


def _copy(x: str, out: Signal) -> o.Affine:
    n = out.channels
    return o.Affine(
        out=Signal(name="y", channels=n, bits=8),
        x=x,
        channels=n,
        M=np.ones(n, np.int16),
        offset=np.zeros(n, np.int32),
        shift=np.ones(n, np.uint8),
    )


@pytest.mark.parametrize(
    ("scale", "offset"), [(0.0, 3.0), (1e30, 0.0), (0.0, 0.0), (1.0, 1e30), (1e-30, -1e30)]
)
def test_absurd_preprocessing_saturates_or_vanishes(scale: float, offset: float) -> None:
    q, _ = quantizer("int16", scale, offset, BYTE)
    got = reference.quantize_input(np.array([[-7], [0], [7]]), q)[:, 0]
    v = np.array([-7, 0, 7]) * scale / float(BYTE.step) + offset / float(BYTE.step)
    np.testing.assert_array_equal(got, np.clip(np.floor(v + 0.5), -127, 127))


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_input_differences_counts_the_values_that_float32_rounds_otherwise(dtype: str) -> None:
    q, p = quantizer(dtype, 2.0**-8, -0.25, BYTE)
    assert input_differences(q, p, BYTE) == 0  # powers of two: exact in float32 and in the integers
    moved = InputQuantizer(
        source=q.source, out=q.out, M=q.M, offset=(q.offset[0] + (1 << q.shift),), shift=q.shift
    )
    raw = every_raw(dtype)[:, None]
    differing = np.sum(reference.quantize_input(raw, q) != reference.quantize_input(raw, moved))
    assert input_differences(moved, p, BYTE) == int(differing) > 0


def test_mnist_is_rounded_as_in_training() -> None:
    q, p = quantizer("uint8", 1 / 255 / 0.3081, -0.1307 / 0.3081, BYTE)
    assert input_differences(q, p, BYTE) == 0


def test_a_model_of_bytes_runs_on_bytes() -> None:
    p = Preprocessing(dtype="uint8", scale=(0.02, -0.01, 0.005), offset=(-1.0, 1.0, 0.0))
    model = lowered(p=p)
    assert model.input.source == "uint8"
    assert (model.description.scale, model.description.offset) == ((), ())
    raw = np.random.default_rng(0).integers(0, 256, (2, 5, 3))
    host = lowered(p=Preprocessing(dtype="float32", scale=p.scale, offset=p.offset))
    scale, offset = np.array(host.description.scale), np.array(host.description.offset)
    codes = np.floor(raw * scale + offset + 0.5).astype(np.int64)
    np.testing.assert_array_equal(reference.logits(model, raw), reference.logits(host, codes))
