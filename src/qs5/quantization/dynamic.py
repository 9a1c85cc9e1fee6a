"""`DynamicArithmetic`: the paper's quantization. Dynamic per-tensor scales, fake-quant inside the parallel scan.

What shares one scale (the paper's code maps AQT's per-tensor scales over examples, and over steps in the SSM):

| operation                  | activation                               | other operand                    |
|----------------------------|------------------------------------------|----------------------------------|
| dense (encoder, gate, ...) | one a sequence, over time and features   | weight: one                      |
| B-bar u                    | one a sequence and step                  | re and im of B-bar: one each     |
| C x                        | re and im of x: one a sequence and step  | re and im of C: one each         |
| D u                        | one a sequence and step                  | D: one                           |
| recurrence                 | see `dynamic_scan`                       |                                  |
| gate product, qGELU, norm  | one a sequence, over time and features   | the same                         |

Widths: weights by their own sites. Activations that meet B, C, D by the spec's ssm_act, all others by its act;
an override of the activation's site comes before both. Float: bias, sums of real and imaginary parts, residual,
statistics of norms, batch norm, pooling, soft GELU and sigmoid. Source: Q-S5 sections 3.1 and 3.2, and its code.
"""

import operator
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp

from qs5.model import arithmetic as floats
from qs5.model.arithmetic import Arithmetic, FloatArithmetic, Normed, Signal
from qs5.model.config import ModelConfig, Pooling
from qs5.model.discretize import Complex
from qs5.model.norms import LAYER_EPS, Norm, per_channel
from qs5.model.operators import qgelu_gate
from qs5.model.sites import Role, sites_of
from qs5.quantization.dynamic_scan import ScanFormat, quantized_scan
from qs5.quantization.fake_quant import Bilinear, DynamicFormat, product, quantize
from qs5.quantization.spec import QuantSpec

_FLOAT = FloatArithmetic()
_STEP = (-1,)
"""One scale for each sequence and time step."""


def _sequence(x: jax.Array) -> tuple[int, ...]:
    """One scale for each sequence: axes L and H of (L, B, H), or H of a pooled (B, H)."""
    return (-3, -1) if x.ndim == 3 else (-1,)


@dataclass(frozen=True)
class DynamicArithmetic(Arithmetic):
    """Operations of the paper. Hashable; build it with `DynamicArithmetic.of`."""

    spec: QuantSpec
    sites: tuple[tuple[str, Role, int | None], ...]
    """Name, role and bits of every site."""

    @classmethod
    def of(cls, spec: QuantSpec, config: ModelConfig) -> "DynamicArithmetic":
        """The arithmetic of a spec for a network. Raises UserError for an override that fits no site."""
        bits = spec.resolve(config)
        return cls(spec, tuple((site.name, site.role, bits[site.name]) for site in sites_of(config)))

    @cached_property
    def _bits(self) -> dict[str, int | None]:
        return {name: bits for name, _, bits in self.sites}

    @cached_property
    def _roles(self) -> dict[str, Role]:
        return {name: role for name, role, _ in self.sites}

    def _activation_bits(self, site: str, role: Role) -> int | None:
        """Bits of an activation as an operand: its site's, if the site has that role, else the spec's for the role."""
        if self._roles[site] == role:
            return self._bits[site]
        return self.spec.ssm_act if role == "ssm_act" else self.spec.act

    def _format(self, bits: int | None, axes: tuple[int, ...] | None) -> DynamicFormat:
        return DynamicFormat(bits=bits, rule=self.spec.range_rule, axes=axes)

    def _product(
        self, op: Bilinear, x: jax.Array, w: jax.Array, x_format: DynamicFormat, w_format: DynamicFormat
    ) -> jax.Array:
        """op(Q(x), Q(w)); the cotangent of a quantized backward pass shares scales as x does."""
        axes = x_format.axes if self.spec.quantized_backward else None
        return product(op, quantize(x, x_format), quantize(w, w_format), gradient_axes=axes)

    def _elementwise(self, x: jax.Array, y: jax.Array, bits: int | None) -> jax.Array:
        """Product of two activations, one scale a sequence each."""
        format_ = self._format(bits, _sequence(x))
        return self._product(operator.mul, x, y, format_, format_)

    # -- operations, in the order of the forward pass -----------------------------------------------------

    def enter(self, site: str, x: jax.Array) -> Signal:
        return Signal(x, site)

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        x_format = self._format(self._activation_bits(x.site, "act"), _sequence(x.value))
        w_format = self._format(self._bits[f"{site}.weight"], None)
        y = self._product(operator.matmul, x.value, weight, x_format, w_format)
        return Signal(y if bias is None else y + per_channel(bias, y), site)

    def norm(self, site: str, x: Signal, norm: Norm, *, batch_stats: bool) -> Normed:
        """qLN: (x - mean) times (scale / sqrt(var + eps)), both quantized. Batch norm is float."""
        if norm.mean is not None or self.spec.act is None:
            return _FLOAT.norm(site, x, norm, batch_stats=batch_stats)
        mean = jnp.mean(x.value, axis=-1, keepdims=True)
        var = jnp.maximum(jnp.mean(x.value * x.value, axis=-1, keepdims=True) - mean * mean, 0.0)
        gain = jax.lax.rsqrt(var + LAYER_EPS) * per_channel(norm.scale, x.value)
        y = self._elementwise(x.value - mean, gain, self.spec.act)
        return Normed(Signal(y if norm.bias is None else y + per_channel(norm.bias, y), site), None)

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        u_format = self._format(self._activation_bits(u.site, "ssm_act"), _STEP)
        w_format = self._format(self._bits[f"{site}.weight"], None)
        parts = [self._product(operator.matmul, u.value, B.T, u_format, w_format) for B in B_bar]
        return Signal(jnp.concatenate(parts, axis=-1), site)

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        # Both directions of a bidirectional layer share one Lambda-bar, hence one weight site.
        format_ = ScanFormat(
            a_bits=self._bits[f"{site.removesuffix('_reverse')}.weight"],
            state_bits=self._bits[f"{site}_out"],
            rule=self.spec.range_rule,
            quantized_backward=self.spec.quantized_backward,
        )
        return Signal(quantized_scan(Lambda_bar, Bu.value, x0, format=format_, reverse=reverse), site)

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        M = states[0].value.shape[-1] // 2
        re = jnp.concatenate([x.value[..., :M] for x in states], axis=-1)
        im = jnp.concatenate([x.value[..., M:] for x in states], axis=-1)
        x_format = self._format(self._bits[f"{states[0].site}_out"], _STEP)
        C_format = self._format(self._bits[f"{site}.C"], None)
        y = self._product(operator.matmul, re, C.re.T, x_format, C_format)
        y = y - self._product(operator.matmul, im, C.im.T, x_format, C_format)
        u_format = self._format(self._activation_bits(u.site, "ssm_act"), _STEP)
        D_format = self._format(self._bits[f"{site}.D"], None)
        direct = self._product(operator.mul, u.value, per_channel(D, u.value), u_format, D_format)
        return Signal(factor * y + direct, site)

    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        if name != "qgelu":
            return _FLOAT.pointwise(site, name, x)
        return Signal(self._elementwise(x.value, qgelu_gate(x.value), self._bits[site]), site)

    def multiply(self, site: str, a: Signal, b: Signal) -> Signal:
        # The product's own site lies on the (float) residual stream: the operands are what is quantized.
        return Signal(self._elementwise(a.value, b.value, self._bits[b.site]), site)

    def add(self, site: str, a: Signal, b: Signal) -> Signal:
        return _FLOAT.add(site, a, b)

    def dropout(self, x: Signal, key: jax.Array, rate: float) -> Signal:
        return _FLOAT.dropout(x, key, rate)

    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Pooling) -> Signal:
        return _FLOAT.pool(site, x, lengths, kind)

    def pair_features(self, site: str, x: Signal) -> Signal:
        return Signal(floats.pair_features(x.value), site)

    def leave(self, x: Signal) -> jax.Array:
        return x.value
