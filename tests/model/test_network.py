"""The whole network: axes, padding, pooling, heads, carried state, dropout."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import Recording, assert_same_bits, small_config, small_inputs, small_model

from qs5.errors import UserError
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.config import NormKind, Pooling
from qs5.model.network import S5Model, forward, init_model
from qs5.model.recurrence import scan_associative, scan_sequential

# float32, the same sums in another order or over another batch; outputs are of size 1.
TOLERANCE = 2e-5

LENGTHS = np.array([7, 3, 1, 5], np.int32)

call = eqx.filter_jit(lambda model, x, lengths=None: model(x, lengths))


def assert_close(got: jax.Array | np.ndarray, expected: jax.Array | np.ndarray) -> None:
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_call_is_the_time_major_forward_pass_turned():
    model, x = small_model(), small_inputs()
    out = forward(model, jnp.swapaxes(x, 0, 1), arithmetic=FloatArithmetic(), lengths=jnp.asarray(LENGTHS))
    assert out.value.shape == (4, 4)
    assert_close(call(model, x, LENGTHS), out.value)
    whole = forward(model, jnp.swapaxes(x, 0, 1), arithmetic=FloatArithmetic())
    assert_close(call(model, x), whole.value)
    assert np.abs(np.asarray(whole.value - out.value)).max() > 100 * TOLERANCE


def test_each_sequence_of_a_batch_is_on_its_own():
    model, x = small_model(), small_inputs()
    assert_close(call(model, x)[1:2], call(model, x[1:2]))


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_does_not_change_the_logits(pooling: Pooling, norm: NormKind):
    model, x = small_model(pooling=pooling, norm=norm), small_inputs()
    padding = np.arange(7)[None, :, None] >= LENGTHS[:, None, None]
    logits = call(model, x, LENGTHS)
    np.testing.assert_array_equal(call(model, jnp.where(padding, 1e3, x), LENGTHS), logits)
    # A change at the last valid step does.
    last = np.arange(7)[None, :, None] == LENGTHS[:, None, None] - 1
    changed = call(model, jnp.where(last, 2.0, x), LENGTHS)
    assert (np.abs(np.asarray(changed - logits)).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize(
    "changes", [{}, {"pooling": "last"}, {"bidirectional": True}, {"bidirectional": True, "prenorm": False}]
)
def test_padded_sequence_is_the_sequence_cut_to_its_length(changes: dict[str, Any]):
    model, x = small_model(padding="masked", **changes), small_inputs()
    logits = call(model, x, LENGTHS)
    for n in (1, 2):
        assert_close(logits[n : n + 1], call(model, x[n : n + 1, : LENGTHS[n]]))


def test_padding_that_is_fed_reaches_the_reverse_scan():
    """As in the official code: the same sequence gives other logits in a longer batch."""
    fed, x = small_model(bidirectional=True, padding="fed"), small_inputs()
    masked = S5Model(**{**vars(fed), "config": fed.config.replace(padding="masked")})
    np.testing.assert_array_equal(call(fed, x), call(masked, x))
    assert np.abs(np.asarray(call(fed, x, LENGTHS) - call(masked, x, LENGTHS)))[1:].min() > 1e-4
    one_way = small_model(padding="fed")
    assert_close(call(one_way, x, LENGTHS)[1:2], one_way(x[1:2, : LENGTHS[1]]))


def test_last_pooling_without_lengths_takes_the_last_step():
    model, x = small_model(pooling="last"), small_inputs()
    assert_close(call(model, x), call(model, x, np.full(4, 7, np.int32)))
    mean = small_model(pooling="mean")
    assert np.abs(np.asarray(call(model, x) - call(mean, x))).max() > 1e-3


def test_reverse_scan_sees_what_comes_after():
    model, x = small_model(bidirectional=True, head="regression"), small_inputs()
    changed = call(model, x.at[:, 6].add(1.0)) - call(model, x)
    assert (np.abs(np.asarray(changed)).max(axis=(0, 2)) > 0).all()
    causal = small_model(head="regression")
    changed = call(causal, x.at[:, 6].add(1.0)) - call(causal, x)
    np.testing.assert_array_equal(changed[:, :6], 0.0)
    assert np.abs(np.asarray(changed[:, 6])).max() > 0


def test_bidirectional_layer_reversed_in_time_swaps_its_directions():
    """Reversing the input and swapping the halves of C reverses the output."""
    model, x = small_model(bidirectional=True, head="regression"), small_inputs()

    def swap(C: jax.Array) -> jax.Array:
        return jnp.roll(C, C.shape[1] // 2, axis=1)

    where = lambda m: [C for layer in m.layers for C in (layer.ssm.C_re, layer.ssm.C_im)]  # noqa: E731
    swapped = eqx.tree_at(where, model, replace_fn=swap)
    assert_close(call(swapped, x[:, ::-1])[:, ::-1], call(model, x))


def test_retrieval_batch_holds_first_documents_then_second_ones():
    model, x = small_model(head="retrieval", d_out=2), small_inputs()
    logits = call(model, x, LENGTHS)
    assert logits.shape == (2, 2)
    for i in range(2):
        pair = np.array([i, 2 + i])
        assert_close(logits[i : i + 1], call(model, x[pair], LENGTHS[pair]))
    exchanged, straight = (call(model, x[i], LENGTHS[i]) for i in np.array([[2, 0, 3, 1], [0, 2, 1, 3]]))
    assert np.abs(np.asarray(exchanged - straight)).max() > 1e-3


def test_retrieval_features_are_both_their_difference_and_their_product():
    model, recording = small_model(head="retrieval", d_out=2), Recording()
    forward(model, jnp.swapaxes(small_inputs(), 0, 1), arithmetic=recording)
    first, second = np.split(np.asarray(recording.values["pool"]), 2)
    expected = np.concatenate([first, second, first - second, first * second], axis=1)
    np.testing.assert_array_equal(recording.values["features"], expected)


def test_regression_gives_one_output_a_step_whatever_the_lengths():
    model, x = small_model(head="regression", d_out=2), small_inputs()
    assert call(model, x).shape == (4, 7, 2)
    time_major = forward(model, jnp.swapaxes(x, 0, 1), arithmetic=FloatArithmetic())
    assert time_major.value.shape == (7, 4, 2)
    np.testing.assert_array_equal(call(model, x, LENGTHS), call(model, x))


@pytest.mark.parametrize("scan", [scan_sequential, scan_associative])
def test_two_chunks_with_carried_states_are_one_call(scan):
    model, x = small_model(head="regression"), jnp.swapaxes(small_inputs(), 0, 1)
    arithmetic = FloatArithmetic(scan)
    run = eqx.filter_jit(lambda x, states: forward(model, x, arithmetic=arithmetic, states=states))
    whole, begin = run(x, None), run(x[:3], None)
    end = run(x[3:], begin.states)
    assert_close(np.concatenate([begin.value, end.value]), whole.value)
    for got, expected in zip(end.states, whole.states, strict=True):
        assert got.shape == (4, 8)
        assert_close(got, expected)
    forgotten = run(x[3:], None)
    assert np.abs(np.asarray(forgotten.value - whole.value[3:])).max() > 1e-3


def dropped(model: S5Model, seed: int) -> Recording:
    recording = Recording()
    x = jnp.swapaxes(small_inputs(), 0, 1)
    forward(model, x, arithmetic=recording, key=jax.random.key(seed), batch_stats=True)
    return recording


def test_dropout_draws_one_mask_for_all_steps_of_a_sequence():
    recording = dropped(small_model(dropout=0.5, activation="half_glu1"), 0)
    assert len(recording.dropped) == 4  # after GELU and after the gate, in two layers
    masks = []
    for before, after in recording.dropped:
        kept = np.asarray(after != 0)
        np.testing.assert_array_equal(after, np.where(kept, 2.0 * np.asarray(before), 0.0))
        np.testing.assert_array_equal(kept, np.broadcast_to(kept[:1], kept.shape))
        masks.append(kept[0])
    assert all(0 < mask.mean() < 1 for mask in masks)
    # Sequences, and places in the network, have masks of their own.
    assert len({mask.tobytes() for mask in masks}) == len(masks)
    assert len({row.tobytes() for row in masks[0]}) > 1


def test_dropout_keeps_the_mean_at_its_rate():
    arithmetic = FloatArithmetic()
    ones = arithmetic.enter("x", jnp.ones((1, 100, 100)))
    after = np.asarray(arithmetic.dropout(ones, jax.random.key(0), 0.2).value)
    np.testing.assert_array_equal(np.unique(after), np.array([0.0, 1.25], np.float32))
    np.testing.assert_allclose((after == 0).mean(), 0.2, atol=0.02)  # five standard deviations


def test_evaluation_drops_nothing():
    x = small_inputs()
    model, without = small_model(dropout=0.5), small_model()
    np.testing.assert_array_equal(call(model, x), call(without, x))
    recording = Recording()
    forward(model, jnp.swapaxes(x, 0, 1), arithmetic=recording)
    assert not recording.dropped


def test_initial_parameters_are_a_function_of_the_key():
    config = small_config(activation="full_glu")
    draw = jax.jit(init_model, static_argnums=1)
    first, again, other = (draw(jax.random.key(seed), config) for seed in (0, 0, 1))
    assert_same_bits(first, again)
    drawn = [leaf for leaf in jax.tree.leaves(first) if np.unique(leaf).size > 1]
    others = [leaf for leaf in jax.tree.leaves(other) if np.unique(leaf).size > 1]
    fixed = 2 * config.layers  # Lambda_im; Lambda_re is a constant up to rounding
    different = sum(not np.array_equal(a, b) for a, b in zip(drawn, others, strict=True))
    assert different >= len(drawn) - fixed
    # No two arrays of one shape share their random numbers.
    weights = [x.tobytes() for x in map(np.asarray, drawn) if x.shape == (6, 6)]
    assert len(set(weights)) == len(weights) == 4


@pytest.mark.parametrize(
    ("shape", "lengths", "sentence"),
    [
        ((4, 7), None, "expected x of shape (B, L, 3), got (4, 7)"),
        ((4, 7, 2), None, "expected x of shape (B, L, 3), got (4, 7, 2)"),
        ((3, 7, 3), None, "a retrieval head takes 2B documents (first ones, then second ones), got 3"),
        ((4, 7, 3), (3,), "expected lengths of shape (4,), one a sequence, got (3,)"),
        ((4, 7, 3), (4, 1), "expected lengths of shape (4,), one a sequence, got (4, 1)"),
    ],
)
def test_wrong_inputs_are_refused(shape: tuple[int, ...], lengths: tuple[int, ...] | None, sentence: str):
    model = small_model(head="retrieval")
    with pytest.raises(UserError) as caught:
        model(jnp.zeros(shape), None if lengths is None else jnp.ones(lengths, jnp.int32))
    assert str(caught.value) == sentence
