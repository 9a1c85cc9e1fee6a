"""`StaticArithmetic`: the deployable forward pass, simulated. Static scales, sequential recurrence.

Activations live on power-of-two grids fixed by calibration, weights on one grid per output channel, the state
is rounded to its grid at every step. Two ways to compute it:

    simulated   real arithmetic in float32, rounded to the grid of each site: `StaticArithmetic`, here
    exact       the integers that a device would compute, as float32 values q 2^exponent: `qs5.quantization.exact`

They differ where float32 cannot hold an accumulator, or rounds a requantization the other way: rarely, and by
one code. The exact pass is what the integer model reproduces bit for bit. Gradients are the same, straight-through.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp

from qs5.kernels import native
from qs5.kernels.layer import SITES
from qs5.model import arithmetic as floats
from qs5.model.arithmetic import Arithmetic, LayerArithmetic, Normed, Signal, WholeResult
from qs5.model.config import Pooling
from qs5.model.discretize import Complex
from qs5.model.norms import Norm, batch_statistics, fold, layer_norm, per_channel, running
from qs5.model.operators import POINTWISE
from qs5.model.recurrence import scan_native, scan_sequential
from qs5.model.whole_layer import Grids as LayerGrids, Weights, WholeLayer, compute
from qs5.quantization.grids import Grid, GridPlan, MovingGrid, to_grid
from qs5.quantization.spec import QuantSpec
from qs5.quantization.weights import (
    QuantizedEigenvalues,
    QuantizedWeight,
    coded_eigenvalues,
    quantize_eigenvalues,
    quantize_weight,
)

KERNEL_SITES = {
    "norm": "norm",
    "Bu": "ssm.Bu",
    "state": "ssm.state",
    "state_out": "ssm.state_out",
    "state_reverse": "ssm.state_reverse",
    "state_reverse_out": "ssm.state_reverse_out",
    "y": "ssm.y",
    "gelu": "gelu",
    "gate": "gate",
    "sigmoid": "sigmoid",
    "product": "product",
    "residual": "residual",
}
"""The kernel's name of a place in a layer, and the name of the site below the layer's."""

STATE_SITES = ("Bu", "state", "state_out", "state_reverse", "state_reverse_out")
"""The kernel's sites with one channel a packed state."""


class Moving(NamedTuple):
    """The numbers of a plan as arguments of a compiled program; see `movable`."""

    steps: dict[str, jax.Array]
    """2^exponent of each activation site that has a grid, scalar or (channels,)."""
    eigenvalues: dict[str, tuple[jax.Array, jax.Array]]
    """The operands (re, im) of polar codes by the weight site of Lambda-bar, integers as float32 (M,)."""


@dataclass(frozen=True)
class StaticArithmetic(LayerArithmetic):
    """Operations on the grids of a `GridPlan`; weights by the bits of a `QuantSpec`. Hashable unless it is `movable`.

    Build it with `quantization.build.arithmetic_for_spec`.
    """

    spec: QuantSpec
    bits: tuple[tuple[str, int | None], ...]
    plan: GridPlan
    kernels: bool = True
    """Use native kernels where they exist (simulated mode only)."""
    moving: Moving | None = None
    """What stands for the plan's numbers, if anything does."""

    @cached_property
    def _bits(self) -> dict[str, int | None]:
        return dict(self.bits)

    def bits_of(self, site: str) -> int | None:
        """Bits of a site; None: float."""
        return self._bits[site]

    @cached_property
    def _grids(self) -> dict[str, Grid] | dict[str, MovingGrid]:
        if self.moving is None:
            return dict(self.plan.grids)
        return {name: MovingGrid(grid.format, self.moving.steps[name]) for name, grid in self.plan.grids}

    def _round(self, site: str, real: jax.Array) -> Signal:
        """A real value onto the grid of its site; unchanged where the site is float."""
        grid = self._grids.get(site)
        return Signal(real if grid is None else to_grid(real, grid), site)

    def _weight(self, site: str, w: jax.Array, axes: tuple[int, ...]) -> QuantizedWeight:
        return quantize_weight(w, bits=self._bits[site], axes=axes, rule=self.spec.range_rule)

    # -- operations, in the order of the forward pass -----------------------------------------------------

    def enter(self, site: str, x: jax.Array) -> Signal:
        return self._round(site, x)

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        W = self._weight(f"{site}.weight", weight, (0,))
        real = x.value @ W.value
        return self._round(site, real if bias is None else real + per_channel(bias, real))

    def norm(self, site: str, x: Signal, norm: Norm, *, batch_stats: bool) -> Normed:
        value = jax.lax.optimization_barrier(x.value)
        if norm.mean is None:
            return Normed(self._round(site, layer_norm(value, norm)), None)
        statistics = (x.statistics or batch_statistics(value)) if batch_stats else running(norm)
        gain, offset = fold(norm, statistics)
        real = value * per_channel(gain, value) + per_channel(offset, value)
        return Normed(self._round(site, real), statistics if batch_stats else None)

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        return self.dot(site, u, floats.packed_inputs(B_bar), None)

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        bits = self._bits[weight_site(site)]
        grid = self._grids.get(site)
        if bits is None or grid is None:
            value = self.eigenvalues(site, Lambda_bar)
            states = self._half_float_recurrence(grid, value, Bu, x0, reverse=reverse)
            return Signal(states, site)
        value = self.eigenvalues(site, Lambda_bar)
        high = grid.format.high
        step = jnp.asarray(grid.step)
        states = self._rounded_scan(value, Bu.value, x0, step, high, reverse=reverse)
        return Signal(states, site)

    def _half_float_recurrence(
        self,
        grid: Grid | MovingGrid | None,
        Lambda_bar: Complex,
        Bu: Signal,
        x0: jax.Array | None,
        *,
        reverse: bool,
    ) -> jax.Array:
        """Float Lambda-bar, or a float state: the other one is still quantized."""
        if grid is None:
            scan = scan_native if self._native(Bu.value) else scan_sequential
            return scan(Lambda_bar, Bu.value, x0, reverse=reverse)
        step = jnp.asarray(grid.step)
        return self._rounded_scan(Lambda_bar, Bu.value, x0, step, grid.format.high, reverse=reverse)

    def _native(self, x: jax.Array) -> bool:
        return self.kernels and native.available() and x.dtype == jnp.float32

    def _rounded_scan(
        self, a: Complex, b: jax.Array, x0: jax.Array | None, step: jax.Array, high: int, *, reverse: bool
    ) -> jax.Array:
        """All states, each rounded to its grid; native and JAX give the same bits."""
        if not self._native(b):
            return _rounded_scan(a, b, x0, step=step, high=high, reverse=reverse)
        step = jnp.broadcast_to(step, b.shape[-1:])
        return scan_native(a, b, x0, reverse=reverse, step=step, high=float(high))

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        operands = self.output_operands(site, states, C, D, factor=factor)
        return self._round(site, operands.real(u))

    def output_operands(
        self, site: str, states: tuple[Signal, ...], C: Complex, D: jax.Array, *, factor: float
    ) -> "OutputOperands":
        """The states as C reads them, in codes, and the quantized C and D."""
        read = [self._round(f"{x.site}_out", x.value) for x in states]
        scaled = Complex(factor * C.re, factor * C.im)
        steps = [self.step_of(x.site, x.value.shape[-1]) for x in read]
        q = jnp.concatenate(
            [x.value * per_channel(1.0 / s, x.value) for x, s in zip(read, steps, strict=True)], -1
        )
        return OutputOperands(q, self._C(site, scaled, steps), self._weight(f"{site}.D", D, (0,)))

    def _C(self, site: str, C: Complex, steps: list[jax.Array]) -> QuantizedWeight:
        """C (S directions, H) for states in codes, whose steps (S,) of each direction are given.

        The grid of each mode moves into its rows of C, so that C meets plain integers of one unit.
        """
        rows = floats.packed_outputs(C, C.re.shape[1] // len(steps)) * jnp.concatenate(steps)[:, None]
        return self._weight(f"{site}.C", rows, (0,))

    def step_of(self, site: str, channels: int) -> jax.Array:
        """The step of each channel of a site; 1 where it is float."""
        grid = self._grids.get(site)
        return jnp.ones(channels) if grid is None else jnp.broadcast_to(grid.step, (channels,))

    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        return self._round(site, POINTWISE[name](x.value))

    def multiply(self, site: str, a: Signal, b: Signal) -> Signal:
        # Exact as it is: two operands of at most 12 bits each on power-of-two grids.
        return self._round(site, a.value * b.value)

    def add(self, site: str, a: Signal, b: Signal) -> Signal:
        # Exact as it is: 16-bit operands on one grid.
        return self._round(site, a.value + b.value)

    def dropout(self, x: Signal, key: jax.Array, rate: float) -> Signal:
        return self._round(x.site, floats.dropout(x.value, key, rate))

    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Pooling) -> Signal:
        pooled = (floats.pool_mean if kind == "mean" else floats.pool_last)(x.value, lengths)
        return self._round(site, pooled)

    def pair_features(self, site: str, x: Signal) -> Signal:
        return self._round(site, floats.pair_features(x.value))

    def leave(self, x: Signal) -> jax.Array:
        return x.value

    @property
    def takes_whole_layers(self) -> bool:
        return self.kernels and native.available()

    def whole_layer(self, name: str, x: Signal, layer: WholeLayer, *, batch_stats: bool) -> WholeResult:
        """The single operations above, in the native kernel."""
        ssm = f"{name}.ssm"
        M = layer.B_bar.re.shape[0]
        directions = ("state", "state_reverse")[: layer.C.re.shape[1] // M]
        steps = [self.step_of(f"{ssm}.{state}_out", 2 * M) for state in directions]
        C = Complex(layer.factor * layer.C.re, layer.factor * layer.C.im)
        weights = Weights(
            a=self.eigenvalues(f"{ssm}.state", layer.Lambda_bar),
            B=self._weight(f"{ssm}.Bu.weight", floats.packed_inputs(layer.B_bar), (0,)).value,
            C=self._C(f"{ssm}.y", C, steps).value,
            D=self._weight(f"{ssm}.y.D", layer.D, (0,)).value,
            W=self._weight(f"{name}.gate.weight", layer.gate_weight, (0,)).value,
            b=layer.gate_bias,
        )
        grids = self._layer_grids(name, H=layer.D.shape[0], S=2 * M)
        done = compute(x.value, layer, weights, known=x.statistics, batch_stats=batch_stats, grids=grids)
        return WholeResult(Signal(done.value, f"{name}.residual", done.statistics), done.used, done.last)

    def eigenvalues(self, site: str, Lambda_bar: Complex) -> Complex:
        """Lambda-bar on its grid, or as it is where it is float."""
        if self._bits[weight_site(site)] is None:
            return Lambda_bar
        a = self._quantized_eigenvalues(site, Lambda_bar)
        return Complex(a.re.value, a.im.value)

    def _quantized_eigenvalues(self, site: str, Lambda_bar: Complex) -> QuantizedEigenvalues:
        """Lambda-bar of a state site in its form."""
        weight = weight_site(site)
        if self.spec.form == "polar":
            return coded_eigenvalues(*Lambda_bar, self._polar_operands[weight])
        bits = self._bits[weight]
        assert bits is not None
        return quantize_eigenvalues(*Lambda_bar, bits=bits, rule=self.spec.range_rule)

    @cached_property
    def _polar_operands(self) -> dict[str, tuple[jax.Array, jax.Array]]:
        return _operands(self.plan) if self.moving is None else self.moving.eigenvalues

    def _layer_grids(self, name: str, *, H: int, S: int) -> LayerGrids:
        """The grids of a layer's sites as the kernel takes them."""
        found = [self._grids.get(f"{name}.{KERNEL_SITES[site]}") for site in SITES]
        widths = [S if site in STATE_SITES else H for site in SITES]
        tables = [
            _kernel_grid(grid, site, width=width, columns=max(H, S))
            for grid, site, width in zip(found, SITES, widths, strict=True)
        ]
        return LayerGrids(jnp.stack(tables), tuple(grid is not None for grid in found))


# No field but `moving` is an argument of a compiled program: two arithmetics that differ elsewhere are two programs.
jax.tree_util.register_dataclass(
    StaticArithmetic, data_fields=["moving"], meta_fields=["spec", "bits", "plan", "kernels"]
)


def movable(arithmetic: Arithmetic) -> Arithmetic:
    """The same arithmetic with the numbers of its plan as arguments of what is compiled for it.

    Under `jax.jit` those of two plans of the same formats share a program, which counts where calibration is often:
    while training. Any other arithmetic as it is.
    """
    if not isinstance(arithmetic, StaticArithmetic):
        return arithmetic
    plan = arithmetic.plan
    steps = {name: jnp.asarray(grid.step) for name, grid in plan.grids}
    return dataclasses.replace(arithmetic, plan=plan.formats, moving=Moving(steps, _operands(plan)))


def _operands(plan: GridPlan) -> dict[str, tuple[jax.Array, jax.Array]]:
    """What the polar codes of a plan decode to, by the weight site of Lambda-bar."""
    return {
        site: (jnp.asarray(re, jnp.float32), jnp.asarray(im, jnp.float32))
        for site, (re, im) in ((site, codes.operands()) for site, codes in plan.eigenvalues)
    }


def _kernel_grid(grid: Grid | MovingGrid | None, site: str, *, width: int, columns: int) -> jax.Array:
    """One site in the kernel's table, (4, columns): 1 / step, step, and the least and the largest code."""
    table = jnp.zeros((4, columns))
    if grid is None:
        return table
    # See `_round_state`.
    low = -grid.format.high if site in ("state", "state_reverse") else grid.format.low
    step = jnp.broadcast_to(jnp.asarray(grid.step), (width,))
    ranges = jnp.asarray([low, grid.format.high], jnp.float32)
    return table.at[0, :width].set(1.0 / step).at[1, :width].set(step).at[2:, 0].set(ranges)


def weight_site(site: str) -> str:
    """The site of Lambda-bar: both directions of a bidirectional layer share one."""
    return f"{site.removesuffix('_reverse')}.weight"


class OutputOperands(NamedTuple):
    """codes: states as C reads them, integers as float32 (L, B, S directions); C (S directions, H) in units that
    meet them; D (H,)."""

    codes: jax.Array
    C: QuantizedWeight
    D: QuantizedWeight

    def real(self, u: Signal) -> jax.Array:
        """C x + D u as a real number."""
        return self.codes @ self.C.value + u.value * per_channel(self.D.value, u.value)


def _round_state(x: jax.Array, parameters: tuple[jax.Array, ...]) -> jax.Array:
    """Nearest value of the state's grid, saturating (`scan_sequential`'s step quantizer)."""
    step, inverse, high = parameters
    return jnp.clip(jnp.floor(x * inverse + 0.5), -high, high) * step


def _rounded_scan(
    a: Complex, b: jax.Array, x0: jax.Array | None, *, step: jax.Array, high: int, reverse: bool
) -> jax.Array:
    step = step[None, :]
    parameters = (step, 1.0 / step, jnp.full((1, 1), float(high)))
    return scan_sequential(a, b, x0, reverse=reverse, quantize=_round_state, parameters=parameters)
