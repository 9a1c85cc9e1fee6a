"""`DynamicArithmetic`: the paper's quantization. Dynamic scales, quantized products inside the parallel scan.

Every product of the network (matrix or elementwise) quantizes both operands just before; everything else
is float: bias and residual additions, sums of real and imaginary parts, statistics of the norms, GELU,
sigmoid and the gate function h of qGELU, pooling, batch norm, discretization.

| product                           | bits of the left, of the right operand            | share a scale    |
|-----------------------------------|---------------------------------------------------|------------------|
| x W: all dense layers             | act at the site of x; `<site>.weight`             | example; tensor  |
| B-bar.re u, B-bar.im u            | ssm_act at the site of u; `<ssm>.Bu.weight`       | step; tensor     |
| A * A, powers of Lambda-bar       | `<ssm>.state.weight` both                         | node; node       |
| A * b, b a state                  | `<ssm>.state.weight`; ssm_act at `<ssm>.state`    | node; node       |
| C.re x.re, C.im x.im              | ssm_act at `<ssm>.state_out`; `<ssm>.y.C`         | step; tensor     |
| D u                               | ssm_act at the site of u; `<ssm>.y.D`             | step; tensor     |
| layer norm: (x - mean) (scale / sigma) | act at the site of x, both (unless quantized_norm=false) | example; example |
| qGELU: x h(x)                     | act at the site of x, both                        | example; example |
| gate product                      | act at the site of each                           | example; example |

One scale is shared by
    example   all of (L, H) of one sequence, future included; a pooled vector (H,)
    step      the features or modes of one time step of one sequence; both directions of a bidirectional layer
    node      the modes at one node of the scan's tree, of one sequence; see `dynamic_scan`
    tensor    the whole array; real and imaginary parts apart

The residual stream and the state are kept in float: a product reads them at act (outside of the SSM) or
ssm_act (in it), or at the bits of an override of their site. Sites that no product reads (`<ssm>.Bu`,
`<ssm>.y` before a float GELU, `<layer>.gate` before the sigmoid, the logits) are float whatever the spec
says.

One departure from the paper's code: it also multiplies B-bar by the imaginary part of u, which is zero; at
one bit its AQT turns that zero into 1/2.

Source: Q-S5 section 3 and its code (kmheckel/Q-S5), which calls AQT under `vmap`: scales are "per tensor" of
what the mapped function sees.
"""

import operator
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp

from qs5.errors import UserError
from qs5.model.arithmetic import Arithmetic, FloatArithmetic, Normed, Signal
from qs5.model.config import ModelConfig, Pooling
from qs5.model.discretize import Complex
from qs5.model.norms import LAYER_EPS, Norm, per_channel
from qs5.model.operators import qgelu_gate
from qs5.quantization.dynamic_scan import ScanFormat, quantized_scan, tree_jax
from qs5.quantization.fake_quant import Bilinear, DynamicFormat, Operand, product, quantize
from qs5.quantization.spec import Bits, QuantSpec

_FLOAT = FloatArithmetic()
_STEP = (-1,)
"""Axes that share a scale within one step of one example."""


@dataclass(frozen=True)
class DynamicArithmetic(Arithmetic):
    """Quantized products with dynamic scales and straight-through gradients. Hashable; build it with `of`."""

    spec: QuantSpec
    config: ModelConfig
    kernels: bool = True
    """Use the native kernel of the scan where it exists."""

    @classmethod
    def of(cls, spec: QuantSpec, config: ModelConfig) -> "DynamicArithmetic":
        """The arithmetic of a parallel spec for a network. Raises UserError if they do not fit."""
        if spec.schedule != "parallel":
            raise UserError(f"spec {spec.name}: dynamic scales need schedule=parallel, got {spec.schedule}")
        bits = spec.resolve(config)
        for site in bits:
            other = site.replace(".state_out", ".state_reverse_out")
            if bits[site] != bits.get(other, bits[site]):
                raise UserError(
                    f"spec {spec.name}: C reads both directions on one scale: give {site} and {other} the "
                    f"same bits, got {bits[site]} and {bits[other]}"
                )
        return cls(spec, config)

    @cached_property
    def _bits(self) -> dict[str, Bits]:
        """Of weights, and of what products outside of the SSM read: for these the residual stream is act."""
        return self.spec.replace(residual=self.spec.act, state=self.spec.ssm_act).resolve(self.config)

    def bits_of(self, site: str) -> Bits:
        """Bits of a weight by its site; None: float."""
        return self._bits[site]

    @cached_property
    def _ssm_bits(self) -> dict[str, Bits]:
        """Of what products in the SSM read: for these the residual stream and the state are ssm_act."""
        return self.spec.replace(residual=self.spec.ssm_act, state=self.spec.ssm_act).resolve(self.config)

    def _read(self, x: jax.Array, bits: Bits, axes: tuple[int, ...] | None) -> Operand:
        return quantize(x, DynamicFormat(bits=bits, rule=self.spec.range_rule, axes=axes))

    def _read_example(self, x: Signal) -> Operand:
        """One scale an example, outside of the SSM."""
        return self._read(x.value, self._bits[x.site], _example_axes(x.value))

    def _weight(self, site: str, w: jax.Array) -> Operand:
        return self._read(w, self._bits[site], None)

    def _product(self, op: Bilinear, a: Operand, b: Operand) -> jax.Array:
        return product(op, a, b, quantized_backward=self.spec.quantized_backward)

    # -- products, in the order of the forward pass -------------------------------------------------------

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        y = self._product(operator.matmul, self._read_example(x), self._weight(f"{site}.weight", weight))
        return Signal(y if bias is None else y + per_channel(bias, y), site)

    def norm(self, site: str, x: Signal, norm: Norm, *, batch_stats: bool) -> Normed:
        bits = self._bits[x.site]
        if norm.mean is not None or bits is None or not self.spec.quantized_norm:
            return _FLOAT.norm(site, x, norm, batch_stats=batch_stats)
        # See FloatArithmetic.norm for the barrier.
        factors = layer_norm_factors(jax.lax.optimization_barrier(x.value), norm)
        y = self._product(operator.mul, *(self._read(f, bits, _example_axes(f)) for f in factors))
        return Normed(Signal(y if norm.bias is None else y + per_channel(norm.bias, y), site), None)

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        u_q = self._read(u.value, self._ssm_bits[u.site], _STEP)
        parts = [self._product(operator.matmul, u_q, self._weight(f"{site}.weight", w.T)) for w in B_bar]
        return Signal(jnp.concatenate(parts, axis=-1), site)

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        # Both directions of a bidirectional layer share one Lambda-bar, hence one weight site.
        a_bits, state_bits = self._bits[f"{site.removesuffix('_reverse')}.weight"], self._ssm_bits[site]
        if a_bits is None and state_bits is None:
            return _FLOAT.recurrence(site, Lambda_bar, Bu, x0, reverse=reverse)
        format = ScanFormat(
            a_bits=a_bits,
            state_bits=state_bits,
            rule=self.spec.range_rule,
            quantized_backward=self.spec.quantized_backward,
        )
        tree = None if self.kernels else tree_jax
        states = quantized_scan(Lambda_bar, Bu.value, x0, format=format, reverse=reverse, tree=tree)
        return Signal(states, site)

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        M = states[0].value.shape[-1] // 2
        bits = self._ssm_bits[f"{states[0].site}_out"]
        x_re = self._read(jnp.concatenate([x.value[..., :M] for x in states], axis=-1), bits, _STEP)
        x_im = self._read(jnp.concatenate([x.value[..., M:] for x in states], axis=-1), bits, _STEP)
        C_re, C_im = (self._weight(f"{site}.C", part.T) for part in C)
        y = self._product(operator.matmul, x_re, C_re) - self._product(operator.matmul, x_im, C_im)
        u_q = self._read(u.value, self._ssm_bits[u.site], _STEP)
        Du = self._product(operator.mul, u_q, self._weight(f"{site}.D", per_channel(D, u.value)))
        return Signal(factor * y + Du, site)

    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        if name != "qgelu":
            return _FLOAT.pointwise(site, name, x)
        h = Signal(qgelu_gate(x.value), x.site)
        return self.multiply(site, x, h)

    def multiply(self, site: str, a: Signal, b: Signal) -> Signal:
        return Signal(self._product(operator.mul, self._read_example(a), self._read_example(b)), site)

    # -- what stays float ---------------------------------------------------------------------------------

    def enter(self, site: str, x: jax.Array) -> Signal:
        return _FLOAT.enter(site, x)

    def add(self, site: str, a: Signal, b: Signal) -> Signal:
        return _FLOAT.add(site, a, b)

    def dropout(self, x: Signal, key: jax.Array, rate: float) -> Signal:
        return _FLOAT.dropout(x, key, rate)

    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Pooling) -> Signal:
        return _FLOAT.pool(site, x, lengths, kind)

    def pair_features(self, site: str, x: Signal) -> Signal:
        return _FLOAT.pair_features(site, x)

    def leave(self, x: Signal) -> jax.Array:
        return _FLOAT.leave(x)


def layer_norm_factors(x: jax.Array, norm: Norm) -> tuple[jax.Array, jax.Array]:
    """(x - mean, scale / sigma), each (L, B, H), of a layer norm over H: sigma^2 = E[x^2] - E[x]^2 + 1e-6."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    var = jnp.maximum(jnp.mean(x * x, axis=-1, keepdims=True) - mean * mean, 0.0)
    return x - mean, jax.lax.rsqrt(var + LAYER_EPS) * per_channel(norm.scale, x)


def _example_axes(x: jax.Array) -> tuple[int, ...]:
    """Axes that share a scale within one example: those of (L, B, H) or (B, H) other than B."""
    return (-3, -1) if x.ndim == 3 else (-1,)
