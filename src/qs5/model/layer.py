"""One residual S5 layer: norm, state-space model, activation with gate, residual."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from qs5.model.arithmetic import Arithmetic, LayerArithmetic, Signal, WholeResult, dropout_mask, valid_steps
from qs5.model.config import ModelConfig
from qs5.model.discretize import Complex
from qs5.model.norms import BatchStatistics, Norm, init_norm
from qs5.model.ssm import SSM, discrete, init_ssm, output_factor, ssm_forward
from qs5.model.whole_layer import WholeLayer


class Dense(eqx.Module):
    """y = x W + b, weight (I, O), bias (O,)."""

    weight: jax.Array
    bias: jax.Array


def init_dense(key: jax.Array, inputs: int, outputs: int) -> Dense:
    """LeCun-normal weight, zero bias."""
    weight = jax.nn.initializers.lecun_normal()(key, (inputs, outputs), jnp.float32)
    return Dense(weight, jnp.zeros(outputs))


class Layer(eqx.Module):
    """Parameters of one layer; `value` and `gate` exist where the activation uses them."""

    norm: Norm
    ssm: SSM
    value: Dense | None
    """W1, full_glu only."""
    gate: Dense | None
    """W2, all but gelu."""


def init_layer(key: jax.Array, c: ModelConfig) -> Layer:
    """A freshly initialised layer."""
    k_ssm, k_value, k_gate = jax.random.split(key, 3)
    value = init_dense(k_value, c.H, c.H) if c.activation == "full_glu" else None
    gate = None if c.activation == "gelu" else init_dense(k_gate, c.H, c.H)
    return Layer(init_norm(c), init_ssm(k_ssm, c), value, gate)


class Context(NamedTuple):
    """What every layer of one forward pass shares."""

    arithmetic: Arithmetic
    config: ModelConfig
    batch_stats: bool
    lengths: jax.Array | None = None
    """True lengths (B,); None when every sequence has all steps."""


class LayerOutput(NamedTuple):
    """Residual stream, batch statistics of the norm if it was batch norm in training, final state (B, S)."""

    signal: Signal
    statistics: BatchStatistics | None
    final_state: jax.Array


def layer_forward(
    layer: Layer, x: Signal, *, context: Context, name: str, key: jax.Array | None, x0: jax.Array | None
) -> LayerOutput:
    """x + activation(SSM(norm(x))), or norm(x + activation(SSM(x))) for a post-norm layer."""
    A, c = context.arithmetic, context.config
    if isinstance(A, LayerArithmetic) and A.takes_whole_layers and _is_whole(layer, x, context):
        return LayerOutput(*_whole_layer(A, layer, x, context=context, name=name, key=key, x0=x0))
    u, statistics = x, None
    if c.prenorm:
        u, statistics = A.norm(f"{name}.norm", x, layer.norm, batch_stats=context.batch_stats)
    y, state = ssm_forward(layer.ssm, _mask(u, context), arithmetic=A, c=c, name=f"{name}.ssm", x0=x0)
    branch = _activate(layer, y, context=context, name=name, key=key)
    out = A.add(f"{name}.residual", x, branch)
    if not c.prenorm:
        out, statistics = A.norm(f"{name}.norm", out, layer.norm, batch_stats=context.batch_stats)
    return LayerOutput(out, statistics, state)


def _mask(u: Signal, context: Context) -> Signal:
    """Zero (which lies on every grid) past the end of each sequence, where the scan from the right would read it.

    A scan from the left meets padding after the last valid step, and what follows that step counts nowhere.
    Statistics of batch norm include padding either way, as in the official code.
    """
    lengths = _masked_lengths(context)
    if lengths is None:
        return u
    return Signal(jnp.where(valid_steps(u.value, lengths), u.value, 0.0), u.site)


def _masked_lengths(context: Context) -> jax.Array | None:
    """Lengths (B,) past which steps are to be zeroed; None: nowhere."""
    c = context.config
    return context.lengths if c.padding == "masked" and c.bidirectional else None


def _is_whole(layer: Layer, x: Signal, context: Context) -> bool:
    """Whether `LayerArithmetic.whole_layer` covers this layer."""
    c = context.config
    covered = c.prenorm and c.activation == "half_glu1" and layer.gate is not None
    return covered and x.value.ndim == 3 and x.value.dtype == jnp.float32


def _whole_layer(
    A: LayerArithmetic,
    layer: Layer,
    x: Signal,
    *,
    context: Context,
    name: str,
    key: jax.Array | None,
    x0: jax.Array | None,
) -> WholeResult:
    """The same as `layer_forward` composes, as one operation."""
    c, ssm = context.config, layer.ssm
    assert layer.gate is not None
    keys = (None, None) if key is None or c.dropout == 0.0 else tuple(jax.random.split(key))
    masks = [None if k is None else dropout_mask(x.value, k, c.dropout) for k in keys]
    Lambda_bar, B_bar = discrete(ssm, c)
    whole = WholeLayer(
        norm=layer.norm,
        Lambda_bar=Lambda_bar,
        B_bar=B_bar,
        C=Complex(ssm.C_re, ssm.C_im),
        D=ssm.D,
        factor=output_factor(c),
        gate_weight=layer.gate.weight,
        gate_bias=layer.gate.bias,
        gelu=c.gelu,
        gate=c.gate,
        masks=(masks[0], masks[1]),
        lengths=_masked_lengths(context),
        x0=x0,
    )
    return A.whole_layer(name, x, whole, batch_stats=context.batch_stats)


def _activate(layer: Layer, y: Signal, *, context: Context, name: str, key: jax.Array | None) -> Signal:
    """gelu:      drop(g), g = gelu(y)
    half_glu1:  g = drop(gelu(y)), drop(g sigmoid(W2 g + b2))
    half_glu2:  g = drop(gelu(y)), drop(y sigmoid(W2 g + b2))
    full_glu:   g = drop(gelu(y)), drop((W1 g + b1) sigmoid(W2 g + b2))

    Source: lindermanlab/S5 `SequenceLayer`.
    """
    A, c = context.arithmetic, context.config
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    g = _drop(A.pointwise(f"{name}.gelu", c.gelu, y), context, keys[0])
    if layer.gate is None:
        return g
    logits = A.dot(f"{name}.gate", g, layer.gate.weight, layer.gate.bias)
    opening = A.pointwise(f"{name}.sigmoid", c.gate, logits)
    factor = y if c.activation == "half_glu2" else g
    if layer.value is not None:
        factor = A.dot(f"{name}.value", g, layer.value.weight, layer.value.bias)
    return _drop(A.multiply(f"{name}.product", factor, opening), context, keys[1])


def _drop(x: Signal, context: Context, key: jax.Array | None) -> Signal:
    rate = context.config.dropout
    if key is None or rate == 0.0:
        return x
    return context.arithmetic.dropout(x, key, rate)
