"""The exact forward pass of a pre-norm, batch-norm network again, in 64-bit NumPy integers, written from the
definitions: an oracle for `StaticArithmetic(exact)`. Shared are only the constants: codes and steps of the
weights, and the multiplier, offset and shift that batch norm folds into (tested on their own).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from qs5.model.discretize import Complex
from qs5.model.network import S5Model
from qs5.model.norms import fold, running
from qs5.model.operators import POINTWISE
from qs5.model.ssm import discrete
from qs5.numerics.multiplier import fixed_point, requantize
from qs5.quantization.integer_ops import fixed_affine
from qs5.quantization.static import StaticArithmetic
from qs5.quantization.weights import quantize_eigenvalues, quantize_weight

Codes = np.ndarray


class IntegerNetwork:
    """Codes of every site for raw real input x (L, B, D), in `sites`."""

    def __init__(self, model: S5Model, arithmetic: StaticArithmetic) -> None:
        self.model, self.c = model, model.config
        self.spec, self.bits = arithmetic.spec, dict(arithmetic.bits)
        self.grids = dict(arithmetic.plan.grids)
        self.sites: dict[str, Codes] = {}

    def run(self, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        m, c = self.model, self.c
        h = self.put("input", np.floor(x / self.step("input") + 0.5))
        h = self.dot("encoder", "input", h, m.encoder.weight, m.encoder.bias)
        for i in range(c.layers):
            h = self.layer(i, h, "encoder" if i == 0 else f"layers.{i - 1}.residual")
        source = f"layers.{c.layers - 1}.residual"
        if c.head == "classification":
            h, source = self.pool(h, lengths), "pool"
        return self.dot("decoder", source, h, m.decoder.weight, m.decoder.bias)

    def layer(self, i: int, x: Codes, source: str) -> Codes:
        c, layer, name = self.c, self.model.layers[i], f"layers.{i}"
        u = self.norm(f"{name}.norm", layer.norm, x, source)
        y = self.ssm(f"{name}.ssm", layer.ssm, u, f"{name}.norm")
        g = self.table(f"{name}.gelu", c.gelu, y, f"{name}.ssm.y")
        if layer.gate is None:
            branch, unit = g, self.step(f"{name}.gelu")
        else:
            logits = self.dot(f"{name}.gate", f"{name}.gelu", g, layer.gate.weight, layer.gate.bias)
            gate = self.table(f"{name}.sigmoid", c.gate, logits, f"{name}.gate")
            factor, site = g, f"{name}.gelu"
            if c.activation == "half_glu2":
                factor, site = y, f"{name}.ssm.y"
            if layer.value is not None:
                site = f"{name}.value"
                factor = self.dot(site, f"{name}.gelu", g, layer.value.weight, layer.value.bias)
            ratio = self.step(site) * self.step(f"{name}.sigmoid") / self.step(f"{name}.product")
            branch = self.put(f"{name}.product", np.floor(factor * gate * float(ratio) + 0.5))
            unit = self.step(f"{name}.product")
        total = x * self.step(source) + branch * unit
        return self.put(f"{name}.residual", np.floor(total / self.step(f"{name}.residual") + 0.5))

    def ssm(self, name: str, ssm: Any, u: Codes, source: str) -> Codes:
        Lambda_bar, B_bar = discrete(ssm, self.c)
        Bu = self.dot(f"{name}.Bu", source, u, jnp.concatenate([B_bar.re, B_bar.im], axis=0).T, None)
        directions = ("state", "state_reverse") if self.c.bidirectional else ("state",)
        states = [self.recurrence(f"{name}.{d}", f"{name}.state.weight", Lambda_bar, Bu) for d in directions]
        reads = []
        for d, q in zip(directions, states, strict=True):
            ratio = self.step(f"{name}.{d}") / self.step(f"{name}.{d}_out")
            reads.append(self.put(f"{name}.{d}_out", np.floor(q * ratio + 0.5)))
        return self.output(f"{name}.y", ssm, directions, reads, u, source)

    def output(
        self, site: str, ssm: Any, directions: tuple[str, ...], reads: list[Codes], u: Codes, source: str
    ) -> Codes:
        factor, M = (2.0 if self.c.conj_sym else 1.0), self.c.modes
        rows = []
        for i, d in enumerate(directions):
            part = slice(i * M, (i + 1) * M)
            C = jnp.concatenate([factor * ssm.C_re[:, part], -(factor * ssm.C_im[:, part])], axis=1).T
            rows.append(C * jnp.asarray(self.step(f"{site.removesuffix('y')}{d}_out"))[:, None])
        C = self.weight(f"{site}.C", jnp.concatenate(rows, axis=0), (0,))
        D = self.weight(f"{site}.D", ssm.D, (0,))
        unit = np.asarray(C.step[0])
        acc = np.concatenate(reads, axis=-1) @ ints(C.codes)
        direct = u * ints(D.codes)
        acc += requantize(
            direct, fixed_point(np.asarray(D.step) * self.step(source) / unit), low=-(2**24), high=2**24
        )
        return self.finish(site, acc, unit)

    def recurrence(self, site: str, weight: str, Lambda_bar: Complex, Bu: Codes) -> Codes:
        bits = self.bits[weight]
        assert bits is not None
        a = quantize_eigenvalues(*Lambda_bar, bits=bits, rule=self.spec.range_rule)
        re, im, M, s = ints(a.re.codes), ints(a.im.codes), int(a.M), int(a.shift)
        high, modes = self.grids[site].format.high, len(re)
        q, out = np.zeros_like(Bu[0]), np.zeros_like(Bu)
        steps = range(len(Bu))
        for k in reversed(steps) if site.endswith("_reverse") else steps:
            x, y = q[:, :modes], q[:, modes:]
            acc = np.concatenate([re * x - im * y, re * y + im * x], axis=-1)
            q = np.clip(((acc * M + (1 << (s - 1))) >> s) + Bu[k], -high, high)
            out[k] = q
        return self.put(site, out)

    def norm(self, site: str, norm: Any, x: Codes, source: str) -> Codes:
        gain, offset = fold(norm, running(norm))
        inverse = 1.0 / self.grids[site].step
        a = fixed_affine(gain * (self.grids[source].step * inverse), offset * inverse)
        M, b, s = (np.asarray(v, np.int64) for v in a)
        return self.put(site, (x * M + b + (np.int64(1) << (s - 1))) >> s)

    def table(self, site: str, name: str, x: Codes, source: str) -> Codes:
        real = np.asarray(POINTWISE[name](jnp.asarray(x * self.step(source), jnp.float32)))
        return self.put(site, np.floor(real / self.step(site) + 0.5))

    def pool(self, q: Codes, lengths: np.ndarray | None) -> Codes:
        n = np.full(q.shape[1], len(q)) if lengths is None else lengths
        if self.c.pooling == "last":
            return self.put("pool", q[n - 1, np.arange(q.shape[1])])
        sums = np.stack([q[: n[i], i].sum(axis=0) for i in range(q.shape[1])])
        return self.put("pool", (sums + n[:, None] // 2) // n[:, None])

    def dot(self, site: str, source: str, x: Codes, weight: Any, bias: Any) -> Codes:
        W = self.weight(f"{site}.weight", weight, (0,))
        unit = np.asarray(W.step[0] * self.grids[source].step)
        acc = x @ ints(W.codes)
        if bias is not None:
            acc = acc + np.floor(np.asarray(bias / unit) + np.float32(0.5)).astype(np.int64)
        return self.finish(site, acc, unit)

    def finish(self, site: str, acc: Codes, unit: np.ndarray) -> Codes:
        grid = self.grids[site]
        ratio = fixed_point(unit / grid.step)
        return self.put(site, requantize(acc, ratio, low=grid.format.low, high=grid.format.high))

    def weight(self, site: str, w: Any, axes: tuple[int, ...]) -> Any:
        return quantize_weight(w, bits=self.bits[site], axes=axes, rule=self.spec.range_rule)

    def step(self, site: str) -> np.ndarray:
        return self.grids[site].step.astype(np.float64)

    def put(self, site: str, q: np.ndarray) -> Codes:
        """Saturate to the site's format and remember."""
        f = self.grids[site].format
        self.sites[site] = np.clip(q, f.low, f.high).astype(np.int64)
        return self.sites[site]


def ints(codes: Any) -> np.ndarray:
    return np.asarray(codes).astype(np.int64)
