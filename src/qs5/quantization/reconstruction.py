"""Reconstruction: weights chosen so that a quantized layer answers like the float one, from calibration data alone.

Rounding every weight to its nearest code would be best if inputs were independent and exact. Instead, in the order of
the forward pass, for one matrix after the other,

    minimize over codes q, steps s, bias o    |X (q s) + o - Y|^2

with X the inputs that the *quantized* network feeds to the matrix, the errors of Lambda-bar and of all rounding before
it included, and Y what the *float* network has in its place. First the least squares solution in real numbers, drawn
towards the trained weight where the data say little, then its codes (`quantization.rounding`). Lambda-bar is frozen.

The result is a model whose float weights lie on their grids: `quantize_weight` finds the same codes and steps again, so
nothing behind it has to know.

Sources: GPTQ (arXiv 2210.17323) for the metric, with coordinate descent in place of its single sweep.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qs5.errors import UserError
from qs5.model.arithmetic import Arithmetic, FloatArithmetic, Signal, packed_outputs, valid_steps
from qs5.model.config import ModelConfig
from qs5.model.discretize import Complex
from qs5.model.layer import Context, Dense, Layer, layer_forward
from qs5.model.network import S5Model
from qs5.model.norms import per_channel
from qs5.model.recurrence import default_scan
from qs5.model.ssm import SSM, discrete, output_factor, with_B_bar
from qs5.quantization.rounding import fitted, least_squares, nearest
from qs5.quantization.static import StaticArithmetic
from qs5.quantization.tap import Tap, Tapped

EVERY = 8
"""Of the states, one step in so many is looked at: neighbours say much the same."""

STATE_BITS = 15
"""A state of 16 bits, without its sign."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionOptions:
    """What is reconstructed, and how far from the trained weights it may go."""

    B: bool = True
    """B-bar."""
    C: bool = True
    """C."""
    dense: bool = True
    """Gate and value, with their biases."""
    least_squares: bool = True
    """Aim at the least squares solution, not at the trained weight."""
    descent: bool = True
    """Find the codes by coordinate descent, not by rounding to nearest."""
    pull: float = 0.01
    """How strongly a weight is drawn to its trained value, relative to the mean square of its input."""


class Moments(NamedTuple):
    """Means over valid steps of X (I,), X^T X (I, I), Y (O,), X^T Y (I, O)."""

    x: np.ndarray
    xx: np.ndarray
    y: np.ndarray
    xy: np.ndarray


class Stream(NamedTuple):
    """What enters a layer for one batch: residual streams (L, B, H) of the float and the quantized network."""

    float: Signal
    quantized: Signal
    lengths: jax.Array | None


class Sums(NamedTuple):
    """What one layer showed for one batch: sums over its valid steps, and their number."""

    of: tuple[jax.Array, ...]
    count: jax.Array


Batches = Sequence[tuple[jax.Array, jax.Array | None]]
"""(x (L, B, D) time-major, lengths (B,) or None)."""


def reconstruct(
    model: S5Model,
    batches: Batches,
    arithmetic: StaticArithmetic,
    *,
    options: ReconstructionOptions | None = None,
) -> S5Model:
    """The model with weights that suit the grids of `arithmetic`, on calibration data.

    Raises UserError for what it does not cover: post-norm layers, and AQT's range rule.
    """
    _check(model, arithmetic)
    options = options or ReconstructionOptions()
    arithmetic = _simulated(arithmetic)
    streams = [_enter(model, x, lengths, arithmetic) for x, lengths in batches]
    layers: list[Layer] = []
    for i, layer in enumerate(model.layers):
        place = _Place(f"layers.{i}", model.config, arithmetic)
        layer, streams = _Walk(layer, streams, place, options).run()
        layers.append(layer)
    return eqx.tree_at(lambda m: m.layers, model, type(model.layers)(layers))


def _check(model: S5Model, arithmetic: StaticArithmetic) -> None:
    if not model.config.prenorm:
        raise UserError(
            "reconstruction: expected layers with the norm in front (prenorm), got post-norm layers"
        )
    if arithmetic.spec.range_rule != "paper":
        raise UserError(
            "reconstruction: expected range_rule=paper, whose steps can be found again in the weights"
        )


def _simulated(arithmetic: StaticArithmetic) -> StaticArithmetic:
    """Reconstruction looks at real numbers; the exact pass differs from them by single codes."""
    return StaticArithmetic(spec=arithmetic.spec, bits=arithmetic.bits, plan=arithmetic.plan)


@eqx.filter_jit
def _enter(model: S5Model, x: jax.Array, lengths: jax.Array | None, arithmetic: StaticArithmetic) -> Stream:
    def encoded(A: Arithmetic) -> Signal:
        return A.dot("encoder", A.enter("input", x), model.encoder.weight, model.encoder.bias)

    return Stream(encoded(FloatArithmetic()), encoded(arithmetic), lengths)


@dataclass(frozen=True, eq=False)
class _Inputs(Tapped):
    """An arithmetic that shows what meets each matrix: `seen(weight site, inputs (L, B, I))`.

    With the site of C comes, under the site of D, what D u adds to the result.
    """

    inner: StaticArithmetic
    tap: Tap
    seen: Callable[[str, jax.Array], None]

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        self.seen(f"{site}.weight", x.value)
        return super().dot(site, x, weight, bias)

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        self.seen(f"{site}.weight", u.value)
        return super().input_projection(site, u, B_bar)

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        operands = self.inner.output_operands(site, states, C, D, factor=factor)
        self.seen(f"{site}.C", operands.codes)
        self.seen(f"{site}.D", u.value * per_channel(operands.D.value, u.value))
        return super().output_projection(site, states, u, C, D, factor=factor)


def _ignore(_: Signal) -> None:
    """A tap that is not needed."""


class _Shown(NamedTuple):
    """`wanted`: results of the float layer by site. `given`: what meets the matrices of the quantized one."""

    wanted: dict[str, jax.Array]
    given: dict[str, jax.Array]
    out: Stream


class _Place(NamedTuple):
    """Which layer of which network, under which arithmetic; hashable."""

    name: str
    config: ModelConfig
    arithmetic: StaticArithmetic


def _show(original: Layer, layer: Layer, stream: Stream, place: _Place) -> _Shown:
    """One batch through the float layer and through the quantized one, whose weights may have been changed."""
    wanted: dict[str, jax.Array] = {}
    given: dict[str, jax.Array] = {}

    def note(x: Signal) -> None:
        wanted[x.site] = x.value

    exact = _through(original, stream.float, Tapped(FloatArithmetic(), note), stream, place)
    inputs = _Inputs(place.arithmetic, _ignore, given.__setitem__)
    rounded = _through(layer, stream.quantized, inputs, stream, place)
    return _Shown(wanted, given, Stream(exact, rounded, stream.lengths))


def _through(layer: Layer, x: Signal, A: Arithmetic, stream: Stream, place: _Place) -> Signal:
    context = Context(A, place.config, False, stream.lengths)
    return layer_forward(layer, x, context=context, name=place.name, key=None, x0=None).signal


@eqx.filter_jit
def _observe(original: Layer, layer: Layer, stream: Stream, place: _Place) -> tuple[dict[str, Sums], Stream]:
    """Sums for the `Moments` of every weight site, and what leaves the layer. All at once: it compiles once."""
    shown = _show(original, layer, stream, place)
    valid = _valid(stream.float.value, stream.lengths)

    def sums(site: str) -> Sums:
        x, y = (_flat(v * valid) for v in (shown.given[site], _target(site, shown)))
        return Sums((x.sum(0), x.T @ x, y.sum(0), x.T @ y), jnp.sum(valid))

    return {site: sums(site) for site in shown.given if not site.endswith(".D")}, shown.out


def _target(site: str, shown: _Shown) -> jax.Array:
    """What the float network has where the product with this weight ends; of C x + D u, only C x."""
    result = shown.wanted[site.rsplit(".", 1)[0]]
    return result - shown.given[f"{site[:-1]}D"] if site.endswith(".C") else result


def _valid(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """(L, B, 1), 1 where a step counts."""
    return jnp.ones((*x.shape[:2], 1)) if lengths is None else valid_steps(x, lengths).astype(jnp.float32)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


@eqx.filter_jit
def _state_sums(original: Layer, layer: Layer, stream: Stream, place: _Place) -> Sums:
    """Real and imaginary part of S^H S (M, H, H), then of S^H x (M, H), summed over every EVERY-th valid step.

    S (n, H) is the layer's input as a mode filters it, s_k = Lambda-bar_m s_{k-1} + u_k: the state is S B-bar_m. x is
    the float network's state. S^H S = (R + I) + i (X - X^T) with R, I, X the products re re, im im, re im of S.
    """
    shown = _show(original, layer, stream, place)
    ssm = f"{place.name}.ssm"
    u, x = shown.given[f"{ssm}.Bu.weight"], shown.wanted[f"{ssm}.state"]
    a = place.arithmetic.eigenvalues(f"{ssm}.state", discrete(layer.ssm, place.config)[0])
    M, H = len(a.re), u.shape[-1]
    late = slice(EVERY - 1, None, EVERY)
    kept = _valid(u, stream.lengths)[late]
    both = jnp.concatenate([u, jnp.zeros_like(u)], axis=-1)
    scan = default_scan(u.dtype)

    def of_mode(mode: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        re, im, x_re, x_im = mode
        S = _flat(scan(Complex(jnp.full(H, re), jnp.full(H, im)), both, None, reverse=False)[late] * kept)
        s_re, s_im = S[:, :H], S[:, H:]
        cross = s_re.T @ s_im
        squares = s_re.T @ s_re + s_im.T @ s_im
        return squares, cross - cross.T, s_re.T @ x_re + s_im.T @ x_im, s_re.T @ x_im - s_im.T @ x_re

    states = _flat(x[late] * kept).T
    return Sums(jax.lax.map(of_mode, (a.re, a.im, states[:M], states[M:])), jnp.sum(kept))


def _means(sums: list[Sums]) -> list[np.ndarray]:
    """Over all batches, in double precision."""
    count = sum(float(s.count) for s in sums)
    return [
        np.sum([np.asarray(v, np.float64) for v in values], axis=0) / count
        for values in zip(*(s.of for s in sums), strict=True)
    ]


@dataclass(frozen=True)
class _Walk:
    """The reconstruction of one layer: one matrix after the other, each in the network that the ones before left."""

    original: Layer
    streams: list[Stream]
    place: _Place
    options: ReconstructionOptions

    def run(self) -> tuple[Layer, list[Stream]]:
        """The layer, and what leaves it."""
        o, layer = self.options, self.original
        if o.B and self._bits("ssm.Bu.weight"):
            layer = self._with_B(layer)
        if o.C and self._bits("ssm.y.C"):
            layer = self._with_C(layer)
        for which in ("value", "gate"):
            if o.dense and getattr(layer, which) is not None and self._bits(f"{which}.weight"):
                layer = self._with_dense(layer, which)
        return layer, [out for _, out in self._observed(layer)]

    def _observed(self, layer: Layer) -> list[tuple[dict[str, Sums], Stream]]:
        return [_observe(self.original, layer, stream, self.place) for stream in self.streams]

    def _bits(self, site: str) -> int | None:
        return dict(self.place.arithmetic.bits)[f"{self.place.name}.{site}"]

    def _moments(self, layer: Layer, site: str) -> Moments:
        name = f"{self.place.name}.{site}"
        return Moments(*_means([sums[name] for sums, _ in self._observed(layer)]))

    def _with_B(self, layer: Layer) -> Layer:
        """B-bar for the states that it leads to, not for B u: each mode is a filter, and hears few of the errors.

        A mode whose Lambda-bar was rounded outside the unit circle, so far that its state saturates, tells nothing of
        its inputs: such rows are rounded to nearest.
        """
        Lambda_bar, B_bar = discrete(layer.ssm, self.place.config)
        B = np.asarray(B_bar.re, np.float64) + 1j * np.asarray(B_bar.im, np.float64)
        sums = [_state_sums(self.original, layer, s, self.place) for s in self.streams]
        ss_re, ss_im, sx_re, sx_im = _means(sums)
        lost = self._outgrown(Lambda_bar)
        ss_re, ss_im = (
            np.where(lost[:, None, None], v, s) for v, s in ((np.eye(B.shape[1]), ss_re), (0.0, ss_im))
        )
        sx_re, sx_im = (np.where(lost[:, None], v, s) for v, s in ((B.real, sx_re), (B.imag, sx_im)))
        if self.options.least_squares:
            cross = (sx_re + 1j * sx_im)[..., None]
            B = least_squares(B[..., None], ss_re + 1j * ss_im, cross, pull=self.options.pull)[..., 0]
        # Real and imaginary part are rounded each by itself: what couples them, Im S^H S, is left out.
        q = self._rounded(np.stack([np.real(B), np.imag(B)], axis=-1), ss_re, "ssm.Bu.weight")
        re, im = (jnp.asarray(q[..., i], jnp.float32) for i in range(2))
        return _with_ssm(layer, with_B_bar(layer.ssm, Complex(re, im), self.place.config))

    def _outgrown(self, Lambda_bar: Complex) -> np.ndarray:
        """Which modes (M,) grow within a sequence from one code to more than a state holds."""
        a = self.place.arithmetic.eigenvalues(f"{self.place.name}.ssm.state", Lambda_bar)
        modulus = np.hypot(np.asarray(a.re, np.float64), np.asarray(a.im, np.float64))
        steps = max(stream.float.value.shape[0] for stream in self.streams)
        return steps * np.log(np.maximum(modulus, np.finfo(np.float64).tiny)) > STATE_BITS * np.log(2.0)

    def _with_C(self, layer: Layer) -> Layer:
        """C in the units of the states' codes, a row a packed state, as `StaticArithmetic.output_operands` has it."""
        config, ssm = self.place.config, layer.ssm
        factor, directions = output_factor(config), 2 if config.bidirectional else 1
        C = Complex(factor * ssm.C_re, factor * ssm.C_im)
        M = ssm.C_re.shape[1] // directions
        steps = jnp.concatenate([self._state_step(i, 2 * M) for i in range(directions)])[:, None]
        rows = packed_outputs(C, M) * steps
        rows = self._weight(rows, self._moments(layer, "ssm.y.C"), "ssm.y.C") / (factor * steps)
        parts = rows.reshape(directions, 2, M, -1)
        re, im = (jnp.concatenate(list(parts[:, i]), axis=0).T for i in range(2))
        return _with_ssm(layer, eqx.tree_at(lambda s: (s.C_re, s.C_im), ssm, (re, -im)))

    def _state_step(self, direction: int, channels: int) -> jax.Array:
        site = f"{self.place.name}.ssm.state" + ("_reverse" if direction else "") + "_out"
        return self.place.arithmetic.step_of(site, channels)

    def _with_dense(self, layer: Layer, which: str) -> Layer:
        moments = self._moments(layer, f"{which}.weight")
        weight = self._weight(getattr(layer, which).weight, _centred(moments), f"{which}.weight")
        bias = moments.y - moments.x @ np.asarray(weight, np.float64)
        new = Dense(weight, jnp.asarray(bias, jnp.float32))
        return eqx.tree_at(lambda v: getattr(v, which), layer, new)

    def _weight(self, weight: jax.Array, moments: Moments, site: str) -> jax.Array:
        """The reconstructed (I, O) weight, on its grid."""
        W = np.asarray(weight, np.float64)
        if self.options.least_squares:
            W = least_squares(W, moments.xx, moments.xy, pull=self.options.pull)
        return jnp.asarray(self._rounded(W, moments.xx, site), jnp.float32)

    def _rounded(self, W: np.ndarray, gram: np.ndarray, site: str) -> np.ndarray:
        bits = self._bits(site)
        assert bits is not None
        if bits == 1:
            return W  # Two levels at half the largest weight: rounded twice, they would shrink.
        return (fitted(W, gram, bits=bits) if self.options.descent else nearest(W, bits=bits)).value


def _centred(m: Moments) -> Moments:
    """Second moments about the means, where a bias takes up the means."""
    return Moments(m.x, m.xx - np.outer(m.x, m.x), m.y, m.xy - np.outer(m.x, m.y))


def _with_ssm(layer: Layer, ssm: SSM) -> Layer:
    return eqx.tree_at(lambda v: v.ssm, layer, ssm)
