"""The S5 network: encoder, layers, pooling, head. One forward pass for every arithmetic."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from qs5.errors import UserError
from qs5.model.arithmetic import Arithmetic, FloatArithmetic, Signal
from qs5.model.config import ModelConfig
from qs5.model.layer import Context, Dense, Layer, init_dense, init_layer, layer_forward
from qs5.model.norms import BatchStatistics, update_running


class S5Model(eqx.Module):
    """An S5 network, an immutable tree of float32 arrays with its configuration.

    `model(x, lengths=None)` is the float network in evaluation mode: x (B, L, D) real, lengths (B,) or None,
    gives logits (B, classes); per-step outputs (B, L, d_out) for a regression head; for a retrieval head the
    batch holds 2B documents, the first of every pair before the second ones, and gives (B, classes).
    """

    encoder: Dense
    layers: tuple[Layer, ...]
    hidden: Dense | None
    """The extra dense layer of the retrieval head, (4H, H)."""
    decoder: Dense
    config: ModelConfig = eqx.field(static=True)

    def __call__(self, x: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        check_input(self.config, x, lengths)
        out = forward(self, jnp.swapaxes(x, 0, 1), arithmetic=FloatArithmetic(), lengths=lengths)
        return batch_major(out.value, self.config)

    @property
    def parameter_count(self) -> int:
        """Trained numbers; running statistics of batch norm are not counted."""
        return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(self, trainable(self))))


def init_model(key: jax.Array, config: ModelConfig) -> S5Model:
    """A freshly initialised network."""
    c = config
    k_enc, k_dec, k_hid, k_layers = jax.random.split(key, 4)
    keys = jax.random.split(k_layers, c.layers)
    retrieval = c.head == "retrieval"
    return S5Model(
        encoder=init_dense(k_enc, c.d_in, c.H),
        layers=tuple(init_layer(k, c) for k in keys),
        hidden=init_dense(k_hid, 4 * c.H, c.H) if retrieval else None,
        decoder=init_dense(k_dec, c.H, c.d_out),
        config=c,
    )


def trainable(model: S5Model) -> S5Model:
    """The same tree with True at every trained array, False at batch norm's running statistics."""
    mask = jax.tree.map(lambda _: True, model)
    norms = [layer.norm for layer in model.layers]
    if all(n.mean is None for n in norms):
        return mask
    where = lambda m: [s for layer in m.layers for s in (layer.norm.mean, layer.norm.var)]  # noqa: E731
    return eqx.tree_at(where, mask, [False] * (2 * len(norms)))


class Output(NamedTuple):
    """value: (B, classes), or time-major (L, B, d_out) for regression.
    statistics: batch norm's batch statistics, one entry a layer, in training.
    states: state after the last step, (B, S) a layer.
    residuals: residual stream after each layer, (L, B, H)."""

    value: jax.Array
    statistics: tuple[BatchStatistics | None, ...]
    states: tuple[jax.Array, ...]
    residuals: tuple[jax.Array, ...]


def forward(
    model: S5Model,
    x: jax.Array,
    *,
    arithmetic: Arithmetic,
    lengths: jax.Array | None = None,
    key: jax.Array | None = None,
    batch_stats: bool = False,
    states: tuple[jax.Array, ...] | None = None,
    remat: bool = False,
) -> Output:
    """The network on time-major x (L, B, D) under an arithmetic.

    key: turns dropout on.  batch_stats: batch norm uses and returns this batch's statistics.
    states: state before the first step, (B, S) a layer (forward scans); zeros if None.
    remat: keep only the residual stream between layers for the gradient, and compute the inside of a layer again
    in the backward pass. Memory per layer falls to one (L, B, H) array; a step does one forward pass more.
    """
    c = model.config
    context = Context(arithmetic, c, batch_stats, lengths)
    keys = [None] * c.layers if key is None else list(jax.random.split(key, c.layers))
    starts = [None] * c.layers if states is None else list(states)
    h = arithmetic.enter("input", x)
    h = arithmetic.dot("encoder", h, model.encoder.weight, model.encoder.bias)
    step = eqx.filter_checkpoint(layer_forward) if remat else layer_forward
    statistics, finals, residuals = [], [], []
    for i, layer in enumerate(model.layers):
        h, stats, final = step(layer, h, context=context, name=f"layers.{i}", key=keys[i], x0=starts[i])
        statistics.append(stats)
        finals.append(final)
        residuals.append(h.value)
    value = arithmetic.leave(_head(model, h, arithmetic=arithmetic, lengths=lengths))
    return Output(value, tuple(statistics), tuple(finals), tuple(residuals))


def _head(model: S5Model, h: Signal, *, arithmetic: Arithmetic, lengths: jax.Array | None) -> Signal:
    c = model.config
    if c.head != "regression":
        h = arithmetic.pool("pool", h, lengths, c.pooling)
    if model.hidden is not None:
        h = arithmetic.pair_features("features", h)
        h = arithmetic.dot("hidden", h, model.hidden.weight, model.hidden.bias)
        # The official head keeps its float GELU even when quantized; here it follows the configuration.
        h = arithmetic.pointwise("hidden_gelu", c.gelu, h)
    return arithmetic.dot("decoder", h, model.decoder.weight, model.decoder.bias)


def check_input(c: ModelConfig, x: jax.Array, lengths: jax.Array | None) -> None:
    """Raises UserError unless x is (B, L, d_in) with a batch that the head can take, and lengths (B,)."""
    if x.ndim != 3 or x.shape[-1] != c.d_in:
        raise UserError(f"expected x of shape (B, L, {c.d_in}), got {x.shape}")
    if c.head == "retrieval" and x.shape[0] % 2:
        raise UserError(
            f"a retrieval head takes 2B documents (first ones, then second ones), got {x.shape[0]}"
        )
    if lengths is not None and lengths.shape != x.shape[:1]:
        raise UserError(f"expected lengths of shape {x.shape[:1]}, one a sequence, got {lengths.shape}")


def batch_major(value: jax.Array, c: ModelConfig) -> jax.Array:
    """(L, B, d_out) to (B, L, d_out) for a regression head; else unchanged."""
    return jnp.swapaxes(value, 0, 1) if c.head == "regression" else value


def with_statistics(model: S5Model, statistics: tuple[BatchStatistics | None, ...]) -> S5Model:
    """The model with batch norm's running statistics moved towards a batch's."""
    momentum = model.config.bn_momentum
    layers = tuple(
        layer if s is None else eqx.tree_at(lambda m: m.norm, layer, update_running(layer.norm, s, momentum))
        for layer, s in zip(model.layers, statistics, strict=True)
    )
    return eqx.tree_at(lambda m: m.layers, model, layers)
