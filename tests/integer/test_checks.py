"""Every rule of `checks`: a model that breaks it and no other, what is said, and bounds that are where they must be.

A bound is right when a sum of 2^31 - 1 is taken and one of 2^31 refused, so ops are made with constants on either side,
driven with the input that makes the sum largest, and the sums worked out in wide integers.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from tests.conformance.models import random_integer_model
from tests.integer.small import (
    affine,
    array,
    change,
    change_signal,
    classifier,
    dense,
    output,
    recurrence,
    regression,
    signal,
    tokens,
)

from qs5.backends import reference
from qs5.integer import ops as o
from qs5.integer.arithmetic import normalize
from qs5.integer.checks import DIRECT_LIMIT, INT32, check, problems
from qs5.integer.errors import IntegerModelError
from qs5.integer.model import IntegerModel


def with_input(model: IntegerModel, **changes: Any) -> IntegerModel:
    return dataclasses.replace(model, input=dataclasses.replace(model.input, **changes))


def with_op(model: IntegerModel, op: o.Op, at: int) -> IntegerModel:
    return dataclasses.replace(model, ops=(*model.ops[:at], op, *model.ops[at:]))


def described(model: IntegerModel, **changes: Any) -> IntegerModel:
    return dataclasses.replace(model, description=dataclasses.replace(model.description, **changes))


GOOD, TOKENS = classifier(), tokens()
FIRST, REGRESSION = GOOD.ops[0], regression([dense("input", signal("y"), [[1]])], signal("input"))
BIDIRECTIONAL = regression(
    [
        recurrence("input", signal("f", 2)),
        recurrence("input", signal("r", 2), reverse=True),
        dense("input", signal("u", 1), [[1, 1]]),
        output("f", "u", signal("y", 1), [[1, 2, 3, 4]], x_reverse="r"),
    ],
    signal("input", 2),
)
WIDE = regression([affine("input", signal("y", 2**14), cls=o.LayerNorm)], signal("input", 2**14, 8))


@pytest.mark.parametrize("model", [GOOD, TOKENS, REGRESSION, BIDIRECTIONAL, WIDE])
def test_valid_models_pass(model: IntegerModel) -> None:
    assert problems(model) == []
    check(model)


@pytest.mark.parametrize("seed", range(40))
def test_random_models_pass(seed: int) -> None:
    assert problems(random_integer_model(seed)) == []


def int16(*values: int) -> np.ndarray:
    return array(values, "int16")


BROKEN: list[tuple[str, IntegerModel, str]] = [
    # the list of ops
    ("no op", dataclasses.replace(GOOD, ops=()), "expected 1 to 4096 ops, got 0"),
    ("too many ops", dataclasses.replace(GOOD, ops=(FIRST,) * 4097), "expected 1 to 4096 ops, got 4097"),
    (
        "no length",
        dataclasses.replace(GOOD, max_length=0),
        "expected a maximal length of 1 to 2147483647, got 0",
    ),
    ("too long", dataclasses.replace(GOOD, max_length=2**31), "expected a maximal length of 1 to 2147483647"),
    (
        "masked steps",
        dataclasses.replace(BIDIRECTIONAL, padding="masked"),
        "expected padding=masked in a classification alone, got a regression",
    ),
    ("padding", dataclasses.replace(GOOD, padding="cut"), "expected padding of fed or masked, got 'cut'"),
    ("unknown signal", change(GOOD, "gelu", x="nothing"), "gelu reads nothing, which nothing wrote"),
    ("own output", change(GOOD, "gelu", x="gelu"), "gelu reads gelu, which nothing wrote"),
    ("later signal", change(GOOD, "gelu", x="residual"), "gelu reads residual, which nothing wrote"),
    ("twice", change_signal(GOOD, "gate", name="gelu"), "two signals are called gelu"),
    ("twice input", change_signal(GOOD, "gate", name="input"), "two signals are called input"),
    (
        "no pool",
        dataclasses.replace(GOOD, task="regression"),
        "expected 0 pooling ops in a regression model, got 1",
    ),
    ("pool", dataclasses.replace(REGRESSION, task="classification"), "expected 1 pooling ops in a classif"),
    (
        "two pools",
        with_op(GOOD, o.LastPool(out=signal("again", 2, 16), x="pool"), 13),
        "expected 1 pooling ops in a classification model, got 2",
    ),
    (
        "step after pool",
        change(GOOD, "logits", x="residual"),
        "logits comes after the pool but reads a signal of every",
    ),
    (
        "input after pool",
        change(GOOD, "logits", x="input"),
        "logits comes after the pool but reads a signal of every step",
    ),
    (
        "kind after pool",
        with_op(GOOD, affine("pool", signal("late", 2)), 13),
        "late: an op of kind affine cannot come after the pool",
    ),
    # the description
    (
        "class names",
        described(GOOD, classes=("a", "b")),
        "description: expected 3 class names or none, got 2",
    ),
    ("no class name", described(GOOD, classes=()), "description: expected 3 class names or none, got 0"),
    ("units", described(GOOD, units=("m",) * 3), "expected no units in a classification model, got 3"),
    ("units of outputs", described(REGRESSION, units=("m", "s")), "expected 1 units or none, got 2"),
    (
        "classes of outputs",
        described(REGRESSION, classes=("a",)),
        "no class names in a regression model, got 1",
    ),
    ("channels named", described(GOOD, channels=("x",)), "expected 2 channel names or none, got 1"),
    ("tokens named", described(TOKENS, channels=("x", "y")), "expected 1 channel names or none, got 2"),
    ("scales", described(REGRESSION, scale=(1.0, 2.0), offset=(0.0,)), "expected 1 scales or none, got 2"),
    ("offsets of the host", described(REGRESSION, scale=(1.0,), offset=(0.0, 0.0)), "expected 1 offsets or"),
    (
        "scale alone",
        described(REGRESSION, scale=(1.0,)),
        "expected scales and offsets or neither, got 1 and 0",
    ),
    # signals
    ("no bits", change_signal(GOOD, "gate", bits=0), "gate: expected 1 to 16 bits, got 0"),
    ("bits", change_signal(GOOD, "gate", bits=17), "gate: expected 1 to 16 bits, got 17"),
    ("huge bits", change_signal(GOOD, "gate", bits=2**62), "gate: expected 1 to 16 bits"),
    ("no channels", change_signal(GOOD, "gate", channels=0), "gate: expected 1 to 16384 channels, got 0"),
    (
        "channels",
        change_signal(GOOD, "gate", channels=2**14 + 1),
        "gate: expected 1 to 16384 channels, got 16385",
    ),
    ("input bits", with_input(GOOD, out=signal("input", 2, 17)), "input: expected 1 to 16 bits, got 17"),
    # the input
    ("multipliers", with_input(GOOD, M=(1,)), "input: expected 2 multipliers and offsets, got 1 and 2"),
    ("offsets", with_input(GOOD, offset=()), "input: expected 2 multipliers and offsets, got 2 and 0"),
    ("M", with_input(GOOD, M=(1, -(2**31))), "input: expected |M| < 2^31"),
    ("offset", with_input(GOOD, offset=(2**61, 0)), "input: expected |M| < 2^31, |offset| < 2^61"),
    ("shift 0", with_input(GOOD, shift=0), "a shift of 1 to 62"),
    ("shift 63", with_input(GOOD, shift=63), "a shift of 1 to 62"),
    ("codes with M", with_input(REGRESSION, M=(1,)), "input: a source of codes has no multipliers"),
    ("tokens with offset", with_input(TOKENS, offset=(1,)), "input: a source of token has no multipliers"),
    ("signed tokens", with_input(TOKENS, out=signal("input")), "input: tokens are one unsigned channel"),
    (
        "two tokens",
        with_input(TOKENS, out=signal("input", 2, signed=False)),
        "input: tokens are one unsigned channel",
    ),
    # shapes
    ("biases", change(GOOD, "h", biases=1, bias=array([1], "int32")), "h: expected 0 or 2 biases, got 1"),
    (
        "dtype",
        change(GOOD, "h", M=array([2**14] * 2, "int32")),
        "h: expected M of shape (2,) int16, got (2,) int32",
    ),
    (
        "shape",
        change(GOOD, "h", shift=array([20], "uint8")),
        "h: expected shift of shape (2,) uint8, got (1,) uint8",
    ),
    (
        "weight shape",
        change(GOOD, "h", weight=array([[1, 2]], "int8")),
        "h: expected weight of shape (2, 2) int8",
    ),
    (
        "table dtype",
        change(GOOD, "sigmoid", table=array(range(255), "int16")),
        "sigmoid: expected table of shape (255,) ui",
    ),
    ("dense inputs", change(GOOD, "logits", x="pool3"), "logits reads pool3"),
    (
        "read channels",
        change(GOOD, "norm", x="h", out=signal("norm", 3)),
        "norm: expected 2 channels in norm, got 3",
    ),
    (
        "embedding channels",
        change_signal(TOKENS, "embedding", channels=3),
        "embedding: expected 2 channels in embedding",
    ),
    ("modes", change_signal(GOOD, "state", channels=6), "state: expected 4 channels in state, got 6"),
    ("shift modes", change_signal(GOOD, "read", channels=2), "read: expected 4 channels in read, got 2"),
    ("output channels", change_signal(GOOD, "y", channels=4), "y: expected 2 channels in y, got 4"),
    (
        "table channels",
        change_signal(GOOD, "sigmoid", channels=3),
        "sigmoid: expected 3 channels in y, got 2",
    ),
    ("add channels", change(GOOD, "residual", y="read"), "residual: expected 2 channels in read, got 4"),
    (
        "odd directions",
        change(BIDIRECTIONAL, "y", inputs=5, C=array([[1, 2, 3, 4, 5]], "int8")),
        "y: expected as many inputs from both directions, got 5",
    ),
    # codes and multipliers
    (
        "code",
        change(GOOD, "h", weight=array([[8, 0], [0, 0]], "int8")),
        "h: weight has codes beyond 7, the largest of 4",
    ),
    ("low code", change(GOOD, "h", weight=array([[-8, 0], [0, 0]], "int8")), "h: weight has codes beyond 7"),
    (
        "-128",
        change(GOOD, "h", bits=8, weight=array([[-128, 0], [0, 0]], "int8")),
        "h: weight has codes beyond 127",
    ),
    ("9 bits", change(GOOD, "h", bits=9), "h: expected weight of 1 to 8 bits, got 9"),
    ("0 bits", change(GOOD, "h", bits=0), "h: expected weight of 1 to 8 bits, got 0"),
    ("zero of 1 bit", change(GOOD, "logits", bits=1), "logits: weight of one bit has a zero"),
    ("C", change(GOOD, "y", bits=3), "y: C has codes beyond 3"),
    ("Lambda", change(GOOD, "state", bits=7), "state: Lambda-bar has codes beyond 63"),
    ("im", change(GOOD, "state", im=int16(-128, 0)), "state: Lambda-bar has codes beyond 127"),
    (
        "-2^15",
        change(GOOD, "state", bits=16, re=int16(-(2**15), 0)),
        "state: Lambda-bar has codes beyond 32767",
    ),
    ("17 bits", change(GOOD, "state", bits=17), "state: expected Lambda-bar of 1 to 16 bits, got 17"),
    ("absurd bits", change(GOOD, "state", bits=2**62), "state: expected Lambda-bar of 1 to 16 bits"),
    ("negative bits", change(GOOD, "state", bits=-(2**62)), "state: expected Lambda-bar of 1 to 16 bits"),
    ("M small", change(GOOD, "h", M=int16(2**14 - 1, 0)), "h: expected multipliers of 15 bits"),
    ("M < 0", change(GOOD, "h", M=int16(-(2**14), 0)), "h: expected multipliers of 15 bits"),
    (
        "shift 0",
        change(GOOD, "h", shift=array([0, 20], "uint8")),
        "h: expected shifts of 1 to 46, got 0 to 20",
    ),
    (
        "shift 47",
        change(GOOD, "h", shift=array([47, 20], "uint8")),
        "h: expected shifts of 1 to 46, got 20 to 47",
    ),
    ("output M", change(GOOD, "y", M=int16(5, 0)), "y: expected multipliers of 15 bits"),
    ("D_M", change(GOOD, "y", D_M=int16(5, 0)), "y: expected multipliers of 15 bits"),
    (
        "D_shift",
        change(GOOD, "y", D_shift=array([0, 1], "uint8")),
        "y: expected shifts of 1 to 46, got 0 to 1",
    ),
    # norms
    ("affine M", change(GOOD, "norm", M=int16(-(2**15), 1)), "norm: expected M of -32767 to 32767"),
    (
        "affine shift",
        change(GOOD, "norm", shift=array([0, 1], "uint8")),
        "norm: expected shifts of 1 to 30, got 0 to 1",
    ),
    (
        "affine shift 31",
        change(GOOD, "norm", shift=array([31, 1], "uint8")),
        "norm: expected shifts of 1 to 30, got 1",
    ),
    (
        "layer norm",
        with_input(WIDE, out=signal("input", 2**14, 16, signed=False)),
        "y: 16384 channels of 16 bits are too many: expected a product below 2^29",
    ),
    # the recurrence
    (
        "widths",
        change_signal(GOOD, "state", bits=8),
        "state: expected the state and what is added to it in the same",
    ),
    (
        "high, not signed",
        change_signal(GOOD, "state", signed=False, bits=15),
        "state: expected the state and what is",
    ),
    (
        "1 and 2 bits",
        regression([recurrence("input", signal("y", 2, 1))], signal("input", 2, 2)),
        "y: expected the state",
    ),
    ("right 0", change(GOOD, "state", shift=0), "state: expected a shift of 1 to 30, got 0"),
    ("right 31", change(GOOD, "state", shift=31), "state: expected a shift of 1 to 30, got 31"),
    ("M_a", change(GOOD, "state", M=2), "state: expected multipliers of 15 bits"),
    ("M_a < 0", change(GOOD, "state", M=-1), "state: expected multipliers of 15 bits"),
    ("M_a shift", change(GOOD, "state", M=2**14, shift=47), "state: expected shifts of 1 to 46, got 47"),
    # the others
    (
        "shift 16",
        change(GOOD, "read", shift=array([16, 0], "int8")),
        "read: expected shifts of -15 to 15, got 0 to 16",
    ),
    ("shift -16", change(GOOD, "read", shift=array([-16, 0], "int8")), "read: expected shifts of -15 to 15"),
    (
        "shift -128",
        change(GOOD, "read", shift=array([-128, 0], "int8")),
        "read: expected shifts of -15 to 15",
    ),
    ("embedding", change_signal(TOKENS, "embedding", bits=3), "embedding: table has codes outside -3 to 3"),
    (
        "no tokens",
        change(TOKENS, "embedding", tokens=0, table=np.zeros((0, 2), np.int8)),
        "embedding: expected one unsigned channel in input and at least one token",
    ),
    (
        "signed token",
        regression([dataclasses.replace(TOKENS.ops[0], out=signal("y", 2))], signal("input")),
        "y: expected one unsigned channel in input",
    ),
    ("table codes", change_signal(GOOD, "sigmoid", bits=7), "sigmoid: table has codes outside 0 to 127"),
    (
        "entries",
        change(GOOD, "sigmoid", entries=256, table=array(range(256), "uint8")),
        "sigmoid: expected 255 entries, got 256",
    ),
    (
        "wide table",
        regression(
            [o.Table(out=signal("y"), x="input", function="", entries=511, table=np.zeros(511, np.int8))],
            signal("input", 1, 9),
        ),
        "y: expected at most 8 bits in input, got 9",
    ),
    (
        "offset 0",
        change(GOOD, "gelu", offset=0),
        "gelu: expected an offset of 1 to 2^15 and a shift of -15 to 30",
    ),
    ("offset", change(GOOD, "gelu", offset=2**15 + 1), "gelu: expected an offset of 1 to 2^15"),
    (
        "gelu shift",
        change(GOOD, "gelu", shift=31),
        "gelu: expected an offset of 1 to 2^15 and a shift of -15 to 30",
    ),
    (
        "gelu left",
        change(GOOD, "gelu", shift=-16),
        "gelu: expected an offset of 1 to 2^15 and a shift of -15 to 30",
    ),
    (
        "gate offset",
        change(GOOD, "gate", offset=2**28 + 1),
        "gate: expected an offset of 1 to 2^28, got 268435457",
    ),
    ("gate offset 0", change(GOOD, "gate", offset=0), "gate: expected an offset of 1 to 2^28, got 0"),
    ("gate M", change(GOOD, "gate", M=2**15), "gate: expected multipliers of 15 bits"),
    ("gate shift", change(GOOD, "gate", shift=0), "gate: expected shifts of 1 to 46, got 0 to 0"),
    ("multiply shift", change(GOOD, "gated", shift=31), "gated: expected a shift of -15 to 30, got 31"),
    ("multiply left", change(GOOD, "gated", shift=-16), "gated: expected a shift of -15 to 30, got -16"),
    ("add shift", change(GOOD, "residual", shift=31), "residual: expected a shift of -15 to 30, got 31"),
    ("add left", change(GOOD, "residual", shift=-16), "residual: expected a shift of -15 to 30, got -16"),
    (
        "pool bits",
        change_signal(GOOD, "pool", bits=15),
        "pool: expected the format of residual, which is pooled",
    ),
    (
        "last pool",
        change_signal(TOKENS, "pool", bits=9),
        "pool: expected the format of embedding, which is pooled",
    ),
]


@pytest.mark.parametrize(("model", "words"), [pytest.param(m, w, id=name) for name, m, w in BROKEN])
def test_a_broken_rule_is_named_and_nothing_else(model: IntegerModel, words: str) -> None:
    found = problems(model)
    assert words in found[0]
    name = words.partition(":")[0]
    assert all(f" {name}" in reason for reason in found[1:]), found  # what reads a signal of an odd format
    with pytest.raises(IntegerModelError) as error:
        check(model)
    assert str(error.value) == "integer model: " + "; ".join(found)


def test_every_broken_rule_is_reported_at_once() -> None:
    model = change(GOOD, "h", shift=array([0, 20], "uint8"), M=int16(1, 0))
    model = change(change(model, "gelu", offset=0), "residual", shift=40)
    model = change_signal(model, "pool", bits=15)
    with pytest.raises(IntegerModelError) as error:
        check(model)
    text = str(error.value)
    assert [part.split(":")[0] for part in text.removeprefix("integer model: ").split("; ")] == [
        "h",
        "h",
        "gelu",
        "residual",
        "pool",
    ]
    assert "\n" not in text


def test_broken_structure_is_reported_at_once() -> None:
    model = change_signal(change(GOOD, "gelu", x="nothing"), "gate", bits=77)
    found = problems(with_input(dataclasses.replace(model, max_length=-1), shift=99))
    assert len(found) == 4


def test_every_kind_of_op_has_rules() -> None:
    from qs5.integer.checks import _RULES

    # Polar codes are checked as the recurrence that they decode to.
    assert set(_RULES) == set(o.KINDS.values()) - {o.PolarRecurrence}


# -- the bounds ------------------------------------------------------------------------------------------------


def refused(model: IntegerModel) -> bool:
    """Whether a model is refused for a sum that is too large, and for nothing else."""
    found = problems(model)
    assert all("a sum may reach" in reason for reason in found), found
    return bool(found)


def drive(model: IntegerModel, *codes: np.ndarray) -> np.ndarray:
    """The last signal for steps of codes (D,)."""
    return reference.logits(model, np.stack(codes)[None])[0]


excess = st.sampled_from([0, 1]) | st.integers(-(2**20), 2**20)
"""How far beyond 2^31 - 1 a sum is."""


@given(st.integers(9, 16), st.integers(300, 16384), excess, st.integers(0, 2**32))
def test_dense_is_taken_exactly_up_to_the_largest_sum(bits: int, n: int, excess: int, seed: int) -> None:
    x = signal("input", n, bits)
    w = np.random.default_rng(seed).integers(-127, 128, n)
    without_bias = int(np.abs(w).sum()) * x.high
    bias = INT32 + excess - without_bias
    if not 0 <= bias <= INT32:
        return
    worst = np.sign(w) * x.high
    for sign in (1, -1):  # in both directions
        op = dense("input", signal("y", 1, 16), w[None], bias=[sign * bias])
        acc = int(w @ (sign * worst)) + sign * bias
        assert abs(acc) == INT32 + excess
        assert refused(regression([op], x)) == (abs(acc) > INT32)
        if excess <= 0:  # the answer of the wide reference is that of a register of 32 bits
            assert acc == int(np.int64(acc).astype(np.int32))
            assert drive(regression([op], x), sign * worst)[0, 0] == np.clip(
                (acc * 2**14 + 2**19) >> 20, -32767, 32767
            )


@given(st.integers(1, 16), st.integers(1, 32767), st.integers(1, 30), excess, st.booleans())
def test_affine_is_taken_exactly_up_to_the_largest_sum(
    bits: int, M: int, s: int, excess: int, signed: bool
) -> None:
    x = signal("input", 1, bits, signed=signed)
    offset = INT32 + excess - M * x.high - 2 ** (s - 1)
    if not 0 <= offset <= INT32:
        return
    op = affine("input", signal("y", 1, 16), M=M, offset=offset, shift=s)
    acc = M * x.high + offset + 2 ** (s - 1)
    assert acc == INT32 + excess
    assert refused(regression([op], x)) == (acc > INT32)


@given(st.integers(1, 32767), st.integers(1, 30), excess)
def test_layer_norm_is_taken_exactly_up_to_the_largest_sum(M: int, s: int, excess: int) -> None:
    offset = INT32 + excess - M * 32767 - 2 ** (s - 1)
    if not 0 <= offset <= INT32:
        return
    x = signal("input", 2**14, 8)
    op = affine("input", signal("y", 2**14, 16), M=M, offset=offset, shift=s, cls=o.LayerNorm)
    one = np.zeros(2**14, np.int64)
    one[0] = 100
    assert normalize(one)[0] == 32767  # the largest that a channel can be
    acc = M * int(normalize(one)[0]) + offset + 2 ** (s - 1)
    assert refused(regression([op], x)) == (acc > INT32)


@given(st.integers(0, 32767), st.integers(0, 32767), st.integers(1, 30), st.sampled_from([1, 2**14]))
def test_recurrence_is_taken_exactly_up_to_the_largest_sum(re: int, im: int, s: int, M: int) -> None:
    """The worst state is (high, -high): both products add up. 65534 * 32767 is 98301 below 2^31: the half decides."""
    out = signal("y", 2, 16)
    op = recurrence("input", out, bits=16, re=int16(re), im=int16(im), M=M, shift=s)
    q = np.array([out.high, -out.high])
    acc = re * int(q[0]) - im * int(q[1]) + (2 ** (s - 1) if M == 1 else 0)
    model = regression([op], signal("input", 2, 16))
    assert refused(model) == (acc > INT32)
    if acc <= INT32:
        rescaled = acc >> s if M == 1 else (acc * M + 2 ** (s - 1)) >> s
        assert drive(model, q, np.zeros(2, np.int64))[1, 0] == min(rescaled, out.high)


def test_the_half_of_the_recurrence_decides() -> None:
    op = recurrence("input", signal("y", 2, 16), bits=16, re=int16(32767), im=int16(32767))
    room = INT32 - 2 * 32767**2
    assert 2**16 < room < 2**17
    for s in (17, 18):
        model = regression([dataclasses.replace(op, shift=s)], signal("input", 2, 16))
        assert refused(model) == (s == 18)


@given(st.integers(9, 15), st.integers(400, 4096), st.integers(-200, 200), st.integers(0, 2**32))
def test_output_is_taken_exactly_up_to_the_largest_sum(bits: int, modes: int, less: int, seed: int) -> None:
    """D u may reach 2^24 whatever D is; the rows of C are filled until the sum is near the limit."""
    state = signal("input", 2 * modes, bits)
    room = (INT32 - DIRECT_LIMIT) // state.high - less
    C = np.zeros(2 * modes, np.int64)
    full, rest = divmod(room, 127)
    if full >= 2 * modes:
        return
    C[:full], C[full] = 127, rest
    C = np.random.default_rng(seed).permutation(C * np.where(np.arange(2 * modes) % 2, 1, -1))
    u = dense("input", signal("u", 1, 16), np.ones((1, 2 * modes)), M=int16(2**14), shift=array([1], "uint8"))
    op = output("input", "u", signal("y", 1, 16), C[None], D_M=int16(32767), D_shift=array([1], "uint8"))
    direct = min(32767 * 7 * 32767 >> 1, DIRECT_LIMIT)
    assert direct == DIRECT_LIMIT
    acc = int(C @ (np.sign(C) * state.high)) + direct
    assert refused(regression([u, op], state)) == (acc > INT32)


@given(st.integers(1, 16), st.integers(1, 16), st.integers(-15, 30), st.booleans(), st.booleans())
def test_multiply_is_taken_exactly_up_to_the_largest_product(
    a: int, b: int, s: int, sx: bool, sy: bool
) -> None:
    x, y = signal("input", 1, a, signed=sx), signal("g", 1, b, signed=sy)
    g = o.Affine(
        out=y, x="input", channels=1, M=int16(1), offset=array([0], "int32"), shift=array([1], "uint8")
    )
    op = o.Multiply(out=signal("y", 1, 16), x="input", y="g", shift=s)
    largest = x.high * y.high + 2 ** (s - 1) if s > 0 else x.high * y.high << -s
    assert refused(regression([g, op], x)) == (largest > INT32)


@given(st.integers(1, 16), st.integers(1, 16), st.integers(-15, 0), st.booleans())
def test_add_is_taken_exactly_up_to_the_largest_sum(a: int, b: int, s: int, signed: bool) -> None:
    x, y = signal("input", 1, a), signal("g", 1, b, signed=signed)
    g = affine("input", y)
    op = o.Add(out=signal("y", 1, 16), x="input", y="g", shift=s)
    assert refused(regression([g, op], x)) == (x.high + (y.high << -s) > INT32)


@given(st.integers(1, 16), st.integers(1, 2**15), st.integers(-15, 30), st.booleans())
def test_qgelu_is_taken_up_to_the_largest_product(bits: int, offset: int, s: int, signed: bool) -> None:
    """Exactly, where x can reach the offset; where it cannot, 2 offset is more than the factor can be."""
    x = signal("input", 1, bits, signed=signed)
    op = o.QGelu(out=signal("y", 1, 16), x="input", offset=offset, shift=s)
    product = x.high * min(x.high + offset, 2 * offset)
    largest = product + 2 ** (s - 1) if s > 0 else product << -s
    said = refused(regression([op], x))
    if x.high >= offset:
        assert said == (largest > INT32)
    elif not said:
        assert largest <= INT32


@pytest.mark.parametrize("seed", range(12))
def test_no_sum_of_a_random_model_leaves_32_bits(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product, sum and half-sum that the reference makes of extreme input fits, where the model was taken."""
    model = random_integer_model(seed)
    real, seen = reference.requantize, []

    def requantize(acc: np.ndarray, M: Any, s: Any) -> np.ndarray:
        seen.append(int(np.max(np.abs(acc), initial=0)))
        return real(acc, M, s)

    monkeypatch.setattr(reference, "requantize", requantize)
    q, rng = model.input, np.random.default_rng(seed)
    low, high = {"uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "token": (0, 10)}.get(
        q.source, (q.out.low, q.out.high)
    )
    reference.run(model, rng.choice([low, high], (2, 40, q.out.channels)))
    assert seen
    assert max(seen) <= INT32
