"""`Program`: an arithmetic that writes down, for every operation of the forward pass, the integer op that does it.

The network is walked once, by its own forward pass. Signals carry zeros of the right shape; what counts is their
site, whose grid gives the codes a meaning, and the frozen constants of `quantization.exact`.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qs5.integer import ops as o
from qs5.integer.arithmetic import requantize, shift
from qs5.integer.signals import Signal as IntegerSignal
from qs5.model.arithmetic import Arithmetic, Normed, Signal
from qs5.model.config import Pooling
from qs5.model.discretize import Complex
from qs5.model.norms import Norm
from qs5.numerics.multiplier import fixed_point
from qs5.numerics.polar import PolarCodes
from qs5.quantization.exact import DenseInts, EigenvalueInts, ExactArithmetic, OutputInts
from qs5.quantization.grids import Grid
from qs5.quantization.integer_ops import Affine


@dataclass(frozen=True, eq=False)
class Program(Arithmetic):
    """Ops in order, in `ops`, while the forward pass runs. `exact` holds the frozen constants."""

    exact: ExactArithmetic
    ops: list[o.Op] = field(default_factory=list)

    # -- what the grids say -------------------------------------------------------------------------------

    def grid(self, site: str) -> Grid:
        """The grid of an activation site."""
        return dict(self.exact.plan.grids)[site]

    def exponent(self, site: str) -> int:
        """The one exponent of a site."""
        exponent = self.grid(site).exponent
        if isinstance(exponent, tuple):
            raise ValueError(f"{site} has one exponent a mode")
        return exponent

    def signal(self, site: str, channels: int) -> IntegerSignal:
        """The integer signal of a site."""
        grid = self.grid(site)
        exponent = None if isinstance(grid.exponent, tuple) else grid.exponent
        f = grid.format
        return IntegerSignal(name=site, channels=channels, bits=f.bits, signed=f.signed, exponent=exponent)

    def _bits(self, site: str) -> int:
        bits = dict(self.exact.bits)[site]
        if bits is None:
            raise ValueError(f"{site} is float")
        return bits

    def _constants(self, site: str) -> Any:
        assert self.exact.constants is not None, "freeze first"
        return self.exact.constants[site]

    def _write(self, op: o.Op) -> Signal:
        self.ops.append(op)
        return Signal(jnp.zeros((1, 1, op.out.channels)), op.out.name)

    # -- operations, in the order of the forward pass -----------------------------------------------------

    def enter(self, site: str, x: jax.Array) -> Signal:
        return Signal(x, site)

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        c: DenseInts = self._constants(site)
        inputs, outputs = c.weight.shape
        return self._write(
            o.Dense(
                out=self.signal(site, outputs),
                x=x.site,
                inputs=inputs,
                outputs=outputs,
                bits=self._bits(f"{site}.weight"),
                biases=outputs if bias is not None else 0,
                weight=_array(np.asarray(c.weight).T, "int8"),
                bias=_array(c.bias if bias is not None else np.zeros(0), "int32"),
                M=_array(c.M, "int16"),
                shift=_array(c.shift, "uint8"),
            )
        )

    def norm(self, site: str, x: Signal, norm: Norm, *, batch_stats: bool) -> Normed:
        a: Affine = self._constants(site)
        kind = o.LayerNorm if norm.mean is None else o.Affine
        channels = x.value.shape[-1]
        op = kind(
            out=self.signal(site, channels),
            x=x.site,
            channels=channels,
            M=_array(a.M, "int16"),
            offset=_array(a.offset, "int32"),
            shift=_array(a.shift, "uint8"),
        )
        return Normed(self._write(op), None)

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        return self.dot(site, u, B_bar.re, None)

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        weight = f"{site.removesuffix('_reverse')}.weight"
        c: EigenvalueInts = self._constants(weight)
        modes = len(c.re)
        exponents = np.broadcast_to(np.asarray(self.grid(site).exponent), (2 * modes,))[:modes]
        common = {
            "out": self.signal(site, 2 * modes),
            "x": Bu.site,
            "modes": modes,
            "reverse": reverse,
            "exponents": _array(exponents, "int8"),
        }
        if self.exact.spec.form == "polar":
            return self._write(_polar_recurrence(dict(self.exact.plan.eigenvalues)[weight], common))
        return self._write(
            o.Recurrence(
                **common,
                bits=self._bits(weight),
                M=int(c.M),
                shift=int(c.shift),
                re=_array(c.re, "int16"),
                im=_array(c.im, "int16"),
            )
        )

    def _read(self, state: Signal) -> Signal:
        """The state as C reads it: each mode shifted from the state's grid to the grid of `<site>_out`."""
        site, width = f"{state.site}_out", state.value.shape[-1]
        source, target = (np.asarray(self.grid(s).exponent) for s in (state.site, site))
        shifts = np.broadcast_to(target - source, (width,))[: width // 2]
        return self._write(
            o.Shift(
                out=self.signal(site, width), x=state.site, modes=width // 2, shift=_array(shifts, "int8")
            )
        )

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        read = [self._read(state) for state in states]
        c: OutputInts = self._constants(site)
        inputs, outputs = c.C.shape
        return self._write(
            o.Output(
                out=self.signal(site, outputs),
                x=read[0].site,
                x_reverse=read[1].site if len(read) > 1 else None,
                u=u.site,
                inputs=inputs,
                outputs=outputs,
                bits=self._bits(f"{site}.C"),
                C=_array(np.asarray(c.C).T, "int8"),
                D=_array(c.D, "int8"),
                D_M=_array(c.D_M, "int16"),
                D_shift=_array(c.D_shift, "uint8"),
                M=_array(c.M, "int16"),
                shift=_array(c.shift, "uint8"),
            )
        )

    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        out = self.signal(site, x.value.shape[-1])
        table = np.asarray(self._constants(site), np.int64)
        table = np.clip(table, out.low, out.high)
        forms = {"qgelu": _qgelu, "hard_sigmoid": _hard_sigmoid}
        if name in forms:
            op = forms[name](out, x.site, table, source=self.grid(x.site), target=self.grid(site))
            if op is not None:
                return self._write(op)
        entries = _array(table, out.dtype.name)
        return self._write(o.Table(out=out, x=x.site, function=name, entries=len(table), table=entries))

    def multiply(self, site: str, a: Signal, b: Signal) -> Signal:
        out = self.signal(site, a.value.shape[-1])
        right = self.exponent(site) - self.exponent(a.site) - self.exponent(b.site)
        return self._write(o.Multiply(out=out, x=a.site, y=b.site, shift=right))

    def add(self, site: str, a: Signal, b: Signal) -> Signal:
        if self.exponent(a.site) != self.exponent(site):
            raise ValueError(
                f"expected {a.site} and {site} on one grid: the residual stream has one exponent"
            )
        out = self.signal(site, a.value.shape[-1])
        right = self.exponent(site) - self.exponent(b.site)
        return self._write(o.Add(out=out, x=a.site, y=b.site, shift=right))

    def dropout(self, x: Signal, key: jax.Array, rate: float) -> Signal:
        raise ValueError("dropout belongs to training")

    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Pooling) -> Signal:
        pool = o.MeanPool if kind == "mean" else o.LastPool
        return self._write(pool(out=self.signal(site, x.value.shape[-1]), x=x.site))

    def pair_features(self, site: str, x: Signal) -> Signal:
        raise ValueError("the retrieval head has no integer form")

    def leave(self, x: Signal) -> jax.Array:
        return x.value


def _polar_recurrence(codes: PolarCodes, common: dict[str, Any]) -> o.PolarRecurrence:
    decay, angle = codes.decay_scale, codes.angle_scale
    return o.PolarRecurrence(
        **common,
        **{f"decay_{name}": getattr(decay, name) for name in ("bits", "mantissa", "unit")},
        **{f"angle_{name}": getattr(angle, name) for name in ("bits", "mantissa", "unit")},
        decays=_array(np.asarray(codes.decays) - 2 ** (decay.bits - 1), "int8"),
        angles=_array(np.asarray(codes.angles) - 2 ** (angle.bits - 1), "int8"),
    )


def _array(values: Any, dtype: str) -> np.ndarray:
    """Constants of an op: whole numbers that fit `dtype`, read-only."""
    wide = np.asarray(values)
    array = np.ascontiguousarray(wide.astype(dtype))
    if not np.array_equal(array.astype(np.float64), wide.astype(np.float64)):
        raise ValueError(f"expected whole numbers within {dtype}, got {wide.min()} to {wide.max()}")
    array.setflags(write=False)
    return array


def _codes_of(source: Grid) -> np.ndarray:
    return np.arange(source.format.low, source.format.high + 1)


def _qgelu(out: IntegerSignal, x: str, table: np.ndarray, *, source: Grid, target: Grid) -> o.QGelu | None:
    """qGELU by a product and a shift: x clip(x + 2, 0, 4) / 4 in codes; None where codes cannot say 2."""
    e, f = int(np.asarray(source.exponent)), int(np.asarray(target.exponent))
    if e > 1:
        return None
    op = o.QGelu(out=out, x=x, offset=2 ** (1 - e), shift=f + 2 - 2 * e)
    q = _codes_of(source)
    got = np.clip(shift(q * np.clip(q + op.offset, 0, 2 * op.offset), op.shift), out.low, out.high)
    return op if np.array_equal(got, table) else None


def _hard_sigmoid(
    out: IntegerSignal, x: str, table: np.ndarray, *, source: Grid, target: Grid
) -> o.HardSigmoid | None:
    """Hard sigmoid by a multiplier: clip(x + 3, 0, 6) / 6 in codes; None where that differs from the table."""
    e, f = int(np.asarray(source.exponent)), int(np.asarray(target.exponent))
    if e > 0:
        return None
    ratio = fixed_point(2.0 ** (e - f) / 6.0)
    op = o.HardSigmoid(out=out, x=x, offset=3 * 2**-e, M=int(ratio.M), shift=int(ratio.shift))
    q = _codes_of(source)
    got = np.clip(requantize(np.clip(q + op.offset, 0, 2 * op.offset), op.M, op.shift), out.low, out.high)
    return op if np.array_equal(got, table) else None
