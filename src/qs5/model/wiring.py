"""How the sites of a network are connected: every operation of its forward pass, without a number computed."""

from dataclasses import dataclass, field
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from qs5.model.arithmetic import Arithmetic, FloatArithmetic, Normed, Signal
from qs5.model.config import ModelConfig, Pooling
from qs5.model.discretize import Complex
from qs5.model.network import forward, init_model
from qs5.model.norms import Norm


class Operation(NamedTuple):
    """One operation: the site it writes, what it is, the sites it reads."""

    site: str
    kind: str
    """Name of the operation, or of the pointwise function."""
    reads: tuple[str, ...]


def wiring_of(config: ModelConfig) -> tuple[Operation, ...]:
    """All operations in the order of the forward pass (evaluation mode)."""
    noted: list[Operation] = []

    def run(key: jax.Array) -> jax.Array:
        x = jnp.zeros((2, 2, config.d_in))  # two steps, and two sequences: a pair for a retrieval head
        return forward(init_model(key, config), x, arithmetic=_Noting(noted)).value

    eqx.filter_eval_shape(run, jax.random.key(0))
    return tuple(noted)


@dataclass(frozen=True, eq=False)
class _Noting(Arithmetic):
    """The float operations, each written down."""

    noted: list[Operation]
    inner: FloatArithmetic = field(default_factory=FloatArithmetic)

    def _note(self, result: Signal, kind: str, *reads: Signal) -> Signal:
        self.noted.append(Operation(result.site, kind, tuple(x.site for x in reads)))
        return result

    def enter(self, site: str, x: jax.Array) -> Signal:
        return self._note(self.inner.enter(site, x), "input")

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        return self._note(self.inner.dot(site, x, weight, bias), "dense", x)

    def norm(self, site: str, x: Signal, norm: Norm, *, batch_stats: bool) -> Normed:
        kind = "layer norm" if norm.mean is None else "batch norm"
        normed = self.inner.norm(site, x, norm, batch_stats=batch_stats)
        return Normed(self._note(normed.signal, kind, x), normed.statistics)

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        return self._note(self.inner.input_projection(site, u, B_bar), "B u", u)

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        states = self.inner.recurrence(site, Lambda_bar, Bu, x0, reverse=reverse)
        return self._note(states, "recurrence", Bu)

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        y = self.inner.output_projection(site, states, u, C, D, factor=factor)
        return self._note(y, "C x + D u", *states, u)

    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        return self._note(self.inner.pointwise(site, name, x), name, x)

    def multiply(self, site: str, a: Signal, b: Signal) -> Signal:
        return self._note(self.inner.multiply(site, a, b), "product", a, b)

    def add(self, site: str, a: Signal, b: Signal) -> Signal:
        return self._note(self.inner.add(site, a, b), "sum", a, b)

    def dropout(self, x: Signal, key: jax.Array, rate: float) -> Signal:
        return self.inner.dropout(x, key, rate)

    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Pooling) -> Signal:
        return self._note(self.inner.pool(site, x, lengths, kind), f"{kind} over time", x)

    def pair_features(self, site: str, x: Signal) -> Signal:
        return self._note(self.inner.pair_features(site, x), "pair features", x)

    def leave(self, x: Signal) -> jax.Array:
        return self.inner.leave(x)
