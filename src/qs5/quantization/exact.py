"""`ExactArithmetic`: the deployable forward pass in the integers that a device computes.

Values are float32 numbers q 2^exponent with q the integer code; products and sums are formed in int32, where the
simulated pass has float32. Gradients are those of the simulated pass, straight-through.

The integer constants (weight codes, multipliers, shifts, tables) follow from float parameters, and a compiler may
round those differently in two programs. So they can be frozen: `freeze` computes all of them once, and an
arithmetic that holds them computes with exactly these. Lowering writes the same ones into the integer model.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from qs5.errors import UserError
from qs5.model import arithmetic as floats
from qs5.model.arithmetic import Normed, Signal
from qs5.model.config import ModelConfig, Pooling
from qs5.model.discretize import Complex
from qs5.model.network import S5Model, forward
from qs5.model.norms import Norm, fold, layer_norm, per_channel, running
from qs5.model.operators import POINTWISE
from qs5.model.sites import sites_of
from qs5.quantization import integer_ops as ints
from qs5.quantization.grids import Grid, MovingGrid, codes, step_for
from qs5.quantization.spec import QuantSpec
from qs5.quantization.static import StaticArithmetic, weight_site
from qs5.quantization.ste import replace_value_inside, round_half_up
from qs5.quantization.weights import mantissa_shift

WIDE = 2**30
"""A bound that no accumulator in use reaches: saturation to a site's format comes after it."""
DIRECT_LIMIT = 2**24
"""D u is clipped to this, in units of the accumulator of C x, before it is added."""

T = TypeVar("T")


class DenseInts(NamedTuple):
    """weight (I, O) codes as float32; bias (O,) int32 in units of the accumulator; out = acc M 2^-shift."""

    weight: jax.Array
    bias: jax.Array
    M: jax.Array
    shift: jax.Array


class EigenvalueInts(NamedTuple):
    """Codes of Lambda-bar (M,) int32, and M 2^-shift = the real step of one code."""

    re: jax.Array
    im: jax.Array
    M: jax.Array
    shift: jax.Array


class OutputInts(NamedTuple):
    """C (S directions, H) and D (H,) codes as float32; D u joins as u D D_M 2^-D_shift; out = acc M 2^-shift."""

    C: jax.Array
    D: jax.Array
    D_M: jax.Array
    D_shift: jax.Array
    M: jax.Array
    shift: jax.Array


@dataclass(frozen=True, eq=False)
class ExactArithmetic(StaticArithmetic):
    """Integers of a `GridPlan`. `constants`: those of `freeze`, by site; None: computed from the parameters."""

    constants: dict[str, Any] | None = None

    @property
    def takes_whole_layers(self) -> bool:
        """Never: the kernel is the simulated pass."""
        return False

    def _constant(self, site: str, make: Callable[[], T]) -> T:
        """The integer constants of a site: the frozen ones, if they are."""
        return make() if self.constants is None else self.constants[site]

    def _codes(self, x: Signal) -> tuple[jax.Array, Grid | MovingGrid]:
        """The integers of a signal as float32, and its grid."""
        grid = self._grids[x.site]
        return codes(x.value, grid), grid

    def _exactly(self, site: str, real: jax.Array, q: jax.Array) -> Signal:
        """Integers q (int32, not yet saturated) as the value, the gradient of `real` inside the range."""
        grid = self._grids[site]
        low, high = grid.format.low, grid.format.high
        value = jnp.clip(q, low, high).astype(jnp.float32) * step_for(grid, q)
        return Signal(replace_value_inside(real, value, (q >= low) & (q <= high)), site)

    def _requantized(
        self, site: str, real: jax.Array, acc: jax.Array, M: jax.Array, shift: jax.Array
    ) -> Signal:
        ratio = (per_channel(v, acc) for v in (M, shift))
        return self._exactly(site, real, ints.requantize(acc, *ratio, low=-WIDE, high=WIDE))

    def _w_high(self, site: str) -> int:
        """Largest code of a weight site."""
        bits = self._bits[site]
        if bits is None:
            raise UserError(f"exact integers need a width for every weight, got float for {site}")
        return max(2 ** (bits - 1) - 1, 1)

    # -- operations, in the order of the forward pass -----------------------------------------------------

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        q, grid = self._codes(x)
        W = self._weight(f"{site}.weight", weight, (0,))
        real = x.value @ W.value
        real = real if bias is None else real + per_channel(bias, real)

        def make() -> DenseInts:
            step = W.step[0] * grid.step
            offset = jnp.zeros(W.codes.shape[1], jnp.int32) if bias is None else _bias_codes(bias, step)
            return DenseInts(W.codes, offset, *mantissa_shift(step / self._grids[site].step))

        c = self._constant(site, make)
        acc = ints.exact_dot(q, c.weight, x_high=grid.format.high, w_high=self._w_high(f"{site}.weight"))
        return self._requantized(site, real, acc + per_channel(c.bias, acc), c.M, c.shift)

    def norm(self, site: str, x: Signal, norm: Norm, *, batch_stats: bool) -> Normed:
        if norm.mean is None:
            return Normed(self._layer_norm(site, x, norm), None)
        if batch_stats:
            # Statistics of the batch are real numbers: while training, this site is simulated.
            return super().norm(site, x, norm, batch_stats=True)
        gain, offset = fold(norm, running(norm))
        real = x.value * per_channel(gain, x.value) + per_channel(offset, x.value)
        q, source = self._codes(x)
        inverse = 1.0 / self._grids[site].step
        a = self._constant(site, lambda: ints.fixed_affine(gain * (source.step * inverse), offset * inverse))
        return Normed(self._affine(site, real, q.astype(jnp.int32), a), None)

    def _layer_norm(self, site: str, x: Signal, norm: Norm) -> Signal:
        q, _ = self._codes(x)
        inverse = 1.0 / self._grids[site].step

        def make() -> ints.Affine:
            offset = jnp.zeros_like(norm.scale) if norm.bias is None else norm.bias
            # The normalized channels have norm 2^15, so sqrt(H) 2^-15 is one standard deviation.
            gain = norm.scale * (norm.scale.shape[0] ** 0.5 * 2.0**-15)
            return ints.fixed_affine(gain * inverse, offset * inverse)

        normalized = ints.normalize(q.astype(jnp.int32))
        return self._affine(site, layer_norm(x.value, norm), normalized, self._constant(site, make))

    def _affine(self, site: str, real: jax.Array, q: jax.Array, a: ints.Affine) -> Signal:
        per_last = ints.Affine(*(per_channel(v, q) for v in a))
        return self._exactly(site, real, ints.affine(q, per_last, low=-WIDE, high=WIDE))

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        weight, grid = weight_site(site), self._grids[site]
        a = self._quantized_eigenvalues(site, Lambda_bar)
        c = self._constant(
            weight,
            lambda: EigenvalueInts(
                a.re.codes.astype(jnp.int32), a.im.codes.astype(jnp.int32), jnp.int32(a.M), jnp.int32(a.shift)
            ),
        )
        rotation = ints.Rotation(c.re, c.im, c.M, c.shift, jnp.asarray(grid.step))
        power = a.shift if isinstance(a.shift, int) else None
        start, high = jnp.zeros_like(Bu.value[0]) if x0 is None else x0, grid.format.high
        states: jax.Array = ints.exact_recurrence(  # pyright: ignore[reportAssignmentType]
            a.re.value[None, :], a.im.value[None, :], Bu.value, start, rotation, power, high, reverse
        )
        return Signal(states, site)

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        w = self.output_operands(site, states, C, D, factor=factor)
        u_q, u_grid = self._codes(u)

        def make() -> OutputInts:
            unit = w.C.step[0]
            direct = mantissa_shift(w.D.step * u_grid.step / unit)
            return OutputInts(w.C.codes, w.D.codes, *direct, *mantissa_shift(unit / self._grids[site].step))

        c = self._constant(site, make)
        x_high = self._grids[f"{states[0].site}_out"].format.high
        acc = ints.exact_dot(w.codes, c.C, x_high=x_high, w_high=self._w_high(f"{site}.C"))
        direct = (u_q * per_channel(c.D, u_q)).astype(jnp.int32)
        ratio = (per_channel(v, direct) for v in (c.D_M, c.D_shift))
        direct = ints.requantize(direct, *ratio, low=-DIRECT_LIMIT, high=DIRECT_LIMIT)
        return self._requantized(site, w.real(u), acc + direct, c.M, c.shift)

    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        source, target = self._grids[x.site], self._grids[site]

        def make() -> jax.Array:
            """A table over all codes of the input, as a device has it: 2^bits entries."""
            entries = jnp.arange(source.format.low, source.format.high + 1).astype(jnp.float32)
            real = POINTWISE[name](entries * source.step)
            return round_half_up(real * (1.0 / target.step)).astype(jnp.int32)

        table = self._constant(site, make)
        index = codes(x.value, source).astype(jnp.int32) - source.format.low
        return self._exactly(site, POINTWISE[name](x.value), jnp.take(table, index, axis=0, mode="clip"))

    # multiply and add are inherited: float32 holds the product of two 8-bit codes and the sum of two 16-bit ones.

    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Pooling) -> Signal:
        if kind == "last":
            return super().pool(site, x, lengths, kind)
        q = self._codes(x)[0].astype(jnp.int32)
        if lengths is not None:
            q = jnp.where(floats.valid_steps(q, lengths), q, 0)
        return self._exactly(site, floats.pool_mean(x.value, lengths), ints.mean_over_time(q, lengths))


jax.tree_util.register_dataclass(
    ExactArithmetic, data_fields=["moving", "constants"], meta_fields=["spec", "bits", "plan", "kernels"]
)


@dataclass(frozen=True, eq=False)
class _Collecting(ExactArithmetic):
    """Notes every constant that the forward pass asks for."""

    found: dict[str, Any] = field(default_factory=dict)

    def _constant(self, site: str, make: Callable[[], T]) -> T:
        self.found[site] = value = make()
        return value


def freeze(model: S5Model, arithmetic: ExactArithmetic) -> ExactArithmetic:
    """The arithmetic with the integer constants of `model`, by site (Lambda-bar's by its weight site)."""
    if arithmetic.constants is not None:
        return arithmetic
    return dataclasses.replace(arithmetic, constants=_constants(model, arithmetic))


@eqx.filter_jit
def _constants(model: S5Model, a: ExactArithmetic) -> dict[str, Any]:
    collecting = _Collecting(spec=a.spec, bits=a.bits, plan=a.plan, moving=a.moving)
    forward(model, jnp.zeros((1, 1, model.config.d_in)), arithmetic=collecting)
    return dict(collecting.found)


def _bias_codes(bias: jax.Array, step: jax.Array) -> jax.Array:
    """A bias in units of an accumulator, int32."""
    return jnp.clip(round_half_up(jax.lax.stop_gradient(bias) / step), -(2.0**29), 2.0**29).astype(jnp.int32)


def exact_obstacles(spec: QuantSpec, config: ModelConfig) -> list[str]:
    """Every reason why the exact pass of this spec does not exist (none: it does)."""
    resolved = spec.resolve(config)
    reasons = [f"{site} is float: give it bits" for site, bits in resolved.items() if bits is None]
    wide = [s for s, bits in resolved.items() if _is_weight(s) and bits is not None and bits > 8]
    reasons += [f"{s} has {resolved[s]} bits: 8-bit weights at most (Lambda-bar: 16)" for s in wide]
    if config.head == "retrieval":
        reasons.append("retrieval head: products of two 16-bit features have no integer form here")
    # The input only meets the encoder's product.
    acts = {s.name: resolved[s.name] for s in sites_of(config) if s.role == "act" and s.name != "input"}
    if wide := sorted({bits for bits in acts.values() if bits is not None and bits > 8}):
        reasons.append(f"act={wide[-1]}: tables and gate products take 8 bits at most")
    return reasons


def _is_weight(site: str) -> bool:
    """Weights that meet an 8-bit operand in a dot product; Lambda-bar may have 16 bits."""
    return site.endswith((".C", ".D")) or (site.endswith(".weight") and not site.endswith("state.weight"))
