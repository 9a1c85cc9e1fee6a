"""The small protocol between the S5 network and the numbers it computes with.

The network (`qs5.model.network`) is written once, as a sequence of these operations; each names the site of
its result. What an operation does with the numbers is the arithmetic's business:

| arithmetic                                | meaning                                             |
|-------------------------------------------|-----------------------------------------------------|
| `FloatArithmetic`                         | the float model                                     |
| `quantization.tap.Tapped`                 | another one, with every result shown to a callback  |
| `quantization.dynamic.DynamicArithmetic`  | the paper: dynamic scales, quantized parallel scan  |
| `quantization.static.StaticArithmetic`    | deployable: static scales, sequential, simulated    |
| `quantization.exact.ExactArithmetic`      | the same in integers, as a device computes them     |
| `lowering.program.Program`                | writes down the integer op of every operation       |
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from qs5.kernels import native
from qs5.model import recurrence
from qs5.model.config import Pooling
from qs5.model.discretize import Complex
from qs5.model.norms import (
    BatchStatistics,
    Norm,
    batch_statistics,
    fold,
    layer_norm,
    per_channel,
    running,
)
from qs5.model.operators import POINTWISE
from qs5.model.whole_layer import Weights, WholeLayer, compute


class Signal(eqx.Module):
    """A tensor in flight, with the name of the site that produced it.

    Invariant: under a quantizing arithmetic, `value` is a real-valued array that lies on the grid of `site`.
    """

    value: jax.Array
    site: str = eqx.field(static=True)
    statistics: BatchStatistics | None = None
    """Of `value` over time and batch, where whoever computed it knows them already."""


class Normed(NamedTuple):
    """Result of a norm, and the batch statistics it used (batch norm in training only)."""

    signal: Signal
    statistics: BatchStatistics | None


class WholeResult(NamedTuple):
    """Residual stream, batch statistics that a batch norm used in training, final state (B, S)."""

    signal: Signal
    statistics: BatchStatistics | None
    final_state: jax.Array


class Arithmetic(abc.ABC):
    """Operations of the S5 forward pass. Shapes: time-major, see `qs5.notation`; S = 2M is packed re, im."""

    @abc.abstractmethod
    def enter(self, site: str, x: jax.Array) -> Signal:
        """A real input (L, B, D) becomes a signal."""

    @abc.abstractmethod
    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        """x (..., I) times weight (I, O) plus bias (O,). The weight's site is `<site>.weight`."""

    @abc.abstractmethod
    def norm(self, site: str, x: Signal, norm: Norm, *, batch_stats: bool) -> Normed:
        """Layer norm, or batch norm with the batch's own (`batch_stats`) or the running statistics."""

    @abc.abstractmethod
    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        """B-bar u, packed (L, B, S), for B-bar (M, H)."""

    @abc.abstractmethod
    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        """All states x_k = Lambda-bar x_{k-1} + (Bu)_k, packed (L, B, S)."""

    @abc.abstractmethod
    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        """factor Re(C x) + D u, (L, B, H); `states` holds one signal a direction, C (H, M directions)."""

    @abc.abstractmethod
    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        """A function of one variable from `operators.POINTWISE`, by name."""

    @abc.abstractmethod
    def multiply(self, site: str, a: Signal, b: Signal) -> Signal:
        """Elementwise product."""

    @abc.abstractmethod
    def add(self, site: str, a: Signal, b: Signal) -> Signal:
        """Elementwise sum (the residual connection)."""

    @abc.abstractmethod
    def dropout(self, x: Signal, key: jax.Array, rate: float) -> Signal:
        """Dropout with one mask shared by all time steps of a sequence (as the official models have it)."""

    @abc.abstractmethod
    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Pooling) -> Signal:
        """(L, B, H) to (B, H): mean over the true length, or the last valid step."""

    @abc.abstractmethod
    def pair_features(self, site: str, x: Signal) -> Signal:
        """Documents (2B, H) to pair features [a, b, a - b, a b] (B, 4H) of the retrieval head."""

    @abc.abstractmethod
    def leave(self, x: Signal) -> jax.Array:
        """The real values of the network's output."""


class LayerArithmetic(Arithmetic):
    """One that can also compute a layer of the common kind in one piece."""

    @property
    @abc.abstractmethod
    def takes_whole_layers(self) -> bool:
        """Whether `whole_layer` is to be used in place of a layer's single operations, where the layer allows."""

    @abc.abstractmethod
    def whole_layer(self, name: str, x: Signal, layer: WholeLayer, *, batch_stats: bool) -> WholeResult:
        """A layer in one operation, with the same result as from its single operations."""


def project_in(u: jax.Array, B_bar: Complex) -> jax.Array:
    """u (L, B, H) times [B-bar.re; B-bar.im]^T as one product, packed (L, B, S)."""
    return u @ packed_inputs(B_bar)


def packed_inputs(B_bar: Complex) -> jax.Array:
    """[B-bar.re; B-bar.im]^T, (H, S)."""
    return jnp.concatenate([B_bar.re, B_bar.im], axis=0).T


def packed_columns(C: Complex, direction: int, M: int) -> jax.Array:
    """Rows that give Re(C x) from a packed state: [C.re, -C.im]^T of one direction, (S, H)."""
    part = slice(direction * M, (direction + 1) * M)
    return jnp.concatenate([C.re[:, part], -C.im[:, part]], axis=1).T


def packed_outputs(C: Complex, M: int) -> jax.Array:
    """The same of all directions, one after the other, (S directions, H)."""
    directions = range(C.re.shape[1] // M)
    return jnp.concatenate([packed_columns(C, i, M) for i in directions], axis=0)


def project_out(states: tuple[jax.Array, ...], C: Complex) -> jax.Array:
    """Re(C x), summed over directions, (L, B, H)."""
    M = states[0].shape[-1] // 2
    outputs = [x @ packed_columns(C, i, M) for i, x in enumerate(states)]
    return sum(outputs[1:], start=outputs[0])


def dropout(x: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """Zero channels with probability `rate`, one mask for all steps (axis 0), scaled to keep the mean."""
    return x * dropout_mask(x, key, rate)[None]


def dropout_mask(x: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """0 or 1 / (1 - rate), shape of x without its axis 0."""
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape[1:])
    return keep.astype(x.dtype) * (1.0 / (1.0 - rate))


def pool_mean(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Mean over time (axis 0), or over the first `lengths` (B,) steps."""
    if lengths is None:
        return jnp.mean(x, axis=0)
    total = jnp.sum(jnp.where(valid_steps(x, lengths), x, 0.0), axis=0)
    return total / lengths[:, None].astype(x.dtype)


def valid_steps(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """(L, B, 1) true where the step is before the end of its sequence."""
    return (jnp.arange(x.shape[0])[:, None] < lengths[None, :])[:, :, None]


def pool_last(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """The last step, or step `lengths - 1` of each sequence, (B, H)."""
    if lengths is None:
        return x[-1]
    return x[lengths - 1, jnp.arange(x.shape[1])]


def pair_features(x: jax.Array) -> jax.Array:
    """[a, b, a - b, a b] for the first and second half of the batch (2B, H) -> (B, 4H)."""
    a, b = jnp.split(x, 2, axis=0)
    return jnp.concatenate([a, b, a - b, a * b], axis=-1)


@dataclass(frozen=True)
class FloatArithmetic(LayerArithmetic):
    """The float model. `scan`: a function of `qs5.model.recurrence`, which is then composed from JAX operations;
    None: native kernels for whole layers where they exist, else the backend's default scan."""

    scan: Callable[..., jax.Array] | None = None

    @property
    def takes_whole_layers(self) -> bool:
        # A subclass that changes single operations is to see them all.
        return type(self) is FloatArithmetic and self.scan is None and native.available()

    def whole_layer(self, name: str, x: Signal, layer: WholeLayer, *, batch_stats: bool) -> WholeResult:
        C = Complex(layer.factor * layer.C.re, layer.factor * layer.C.im)
        weights = Weights(
            a=layer.Lambda_bar,
            B=packed_inputs(layer.B_bar),
            C=packed_outputs(C, layer.B_bar.re.shape[0]),
            D=layer.D,
            W=layer.gate_weight,
            b=layer.gate_bias,
        )
        done = compute(x.value, layer, weights, known=x.statistics, batch_stats=batch_stats)
        return WholeResult(Signal(done.value, f"{name}.residual", done.statistics), done.used, done.last)

    def enter(self, site: str, x: jax.Array) -> Signal:
        return Signal(x, site)

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        y = x.value @ weight
        return Signal(y if bias is None else y + per_channel(bias, y), site)

    def norm(self, site: str, x: Signal, norm: Norm, *, batch_stats: bool) -> Normed:
        # Without the barrier XLA's CPU backend recomputes the whole residual branch inside every reduction
        # of the norm and of its gradient: a fifth of a training step.
        value = jax.lax.optimization_barrier(x.value)
        if norm.mean is None:
            return Normed(Signal(layer_norm(value, norm), site), None)
        statistics = (x.statistics or batch_statistics(value)) if batch_stats else running(norm)
        gain, offset = fold(norm, statistics)
        y = value * per_channel(gain, value) + per_channel(offset, value)
        return Normed(Signal(y, site), statistics if batch_stats else None)

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        return Signal(project_in(u.value, B_bar), site)

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        scan = self.scan or recurrence.default_scan(Bu.value.dtype)
        return Signal(scan(Lambda_bar, Bu.value, x0, reverse=reverse), site)

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        scaled = Complex(factor * C.re, factor * C.im)
        y = project_out(tuple(s.value for s in states), scaled)
        return Signal(y + u.value * per_channel(D, u.value), site)

    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        return Signal(POINTWISE[name](x.value), site)

    def multiply(self, site: str, a: Signal, b: Signal) -> Signal:
        return Signal(a.value * b.value, site)

    def add(self, site: str, a: Signal, b: Signal) -> Signal:
        return Signal(a.value + b.value, site)

    def dropout(self, x: Signal, key: jax.Array, rate: float) -> Signal:
        return Signal(dropout(x.value, key, rate), x.site)

    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Pooling) -> Signal:
        pooled = (pool_mean if kind == "mean" else pool_last)(x.value, lengths)
        return Signal(pooled, site)

    def pair_features(self, site: str, x: Signal) -> Signal:
        return Signal(pair_features(x.value), site)

    def leave(self, x: Signal) -> jax.Array:
        return x.value
