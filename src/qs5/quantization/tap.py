"""`Tapped`: any arithmetic, with every result shown to a callback. Calibration and conformance tests use it."""

from collections.abc import Callable
from dataclasses import dataclass

import jax

from qs5.model.arithmetic import Arithmetic, Normed, Signal
from qs5.model.config import Pooling
from qs5.model.discretize import Complex
from qs5.model.norms import Norm

Tap = Callable[[Signal], None]


@dataclass(frozen=True, eq=False)
class Tapped(Arithmetic):
    """The operations of `inner`; `tap` sees each signal, traced or not, under the site it was written at."""

    inner: Arithmetic
    tap: Tap

    def _show(self, x: Signal) -> Signal:
        self.tap(x)
        return x

    def enter(self, site: str, x: jax.Array) -> Signal:
        return self._show(self.inner.enter(site, x))

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        return self._show(self.inner.dot(site, x, weight, bias))

    def norm(self, site: str, x: Signal, norm: Norm, *, batch_stats: bool) -> Normed:
        normed = self.inner.norm(site, x, norm, batch_stats=batch_stats)
        return Normed(self._show(normed.signal), normed.statistics)

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        return self._show(self.inner.input_projection(site, u, B_bar))

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        return self._show(self.inner.recurrence(site, Lambda_bar, Bu, x0, reverse=reverse))

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        return self._show(self.inner.output_projection(site, states, u, C, D, factor=factor))

    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        return self._show(self.inner.pointwise(site, name, x))

    def multiply(self, site: str, a: Signal, b: Signal) -> Signal:
        return self._show(self.inner.multiply(site, a, b))

    def add(self, site: str, a: Signal, b: Signal) -> Signal:
        return self._show(self.inner.add(site, a, b))

    def dropout(self, x: Signal, key: jax.Array, rate: float) -> Signal:
        return self.inner.dropout(x, key, rate)

    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Pooling) -> Signal:
        return self._show(self.inner.pool(site, x, lengths, kind))

    def pair_features(self, site: str, x: Signal) -> Signal:
        return self._show(self.inner.pair_features(site, x))

    def leave(self, x: Signal) -> jax.Array:
        return self.inner.leave(x)
