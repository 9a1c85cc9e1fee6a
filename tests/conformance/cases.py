"""Random networks, specs and inputs that every backend must agree on, each from one seed."""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from tests.support import shapes_of

from qs5.integer.model import IntegerModel
from qs5.lowering.lower import Preprocessing, frozen_arithmetic, lower
from qs5.model import hippo
from qs5.model.arithmetic import Arithmetic
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model, forward
from qs5.quantization.build import plan_of, prepared
from qs5.quantization.calibration import calibrate
from qs5.quantization.grids import GridPlan, step_for
from qs5.quantization.spec import QuantSpec, spec_of
from qs5.quantization.tap import Tapped


@dataclass(frozen=True)
class Case:
    """A network, a spec, and integer input sequences (B, L, D) with their lengths (or None)."""

    config: ModelConfig
    spec: QuantSpec
    L: int
    B: int
    seed: int
    padded: bool

    @cached_property
    def model(self) -> S5Model:
        """Parameters about as initialised, norms and biases moved away from their neutral values.

        They come from NumPy: JAX would compile a random generator for every shape, of which no two cases have the same.
        """
        c, rng = self.config, np.random.default_rng(self.seed)
        Lambda = hippo.hippo_n(P=c.P, J=c.J, conj_sym=c.conj_sym).Lambda

        def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
            return jnp.asarray(values(str(getattr(path[-1], "name", "")), leaf.shape), leaf.dtype)

        def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
            if name in ("Lambda_re", "Lambda_im"):
                return np.real(Lambda) if name == "Lambda_re" else np.imag(Lambda)
            if name == "log_step":
                return rng.uniform(np.log(c.dt_min), np.log(c.dt_max), shape)
            if name in ("scale", "var"):
                return rng.uniform(0.3, 3.0, shape)
            if name in ("bias", "mean"):
                return rng.normal(0.0, 0.5, shape)
            variance = {"D": 1.0, "weight": 1.0 / shape[0]}.get(name, 1.0 / c.P)  # B and C: 1/P
            return rng.normal(0.0, variance**0.5, shape)

        return prepared(jax.tree_util.tree_map_with_path(draw, shapes_of(c)), self.spec)

    @cached_property
    def x(self) -> np.ndarray:
        """Real input (B, L, D) float32: noise with bursts, so that some sites saturate."""
        rng = np.random.default_rng(self.seed + 1)
        bursts = 1.0 + 3.0 * (rng.random((self.B, self.L, 1)) < 0.02)
        return (rng.normal(size=(self.B, self.L, self.config.d_in)) * bursts).astype(np.float32)

    @cached_property
    def lengths(self) -> np.ndarray | None:
        """True lengths of a padded batch: 1 and L among them."""
        if not self.padded:
            return None
        rng = np.random.default_rng(self.seed + 2)
        lengths = rng.integers(1, self.L + 1, self.B)
        lengths[0], lengths[-1] = self.L, 1
        return lengths

    @cached_property
    def plan(self) -> GridPlan:
        """Grids calibrated on the first half of the first sequences: what comes after may saturate."""
        part = jnp.asarray(np.swapaxes(self.x[:, : max(1, self.L // 2)], 0, 1))
        return plan_of(self.model, calibrate(self.model, [(part, None)], data="test"), self.spec)

    @cached_property
    def arithmetic(self) -> Arithmetic:
        """The exact forward pass with frozen constants."""
        return frozen_arithmetic(self.model, spec=self.spec, plan=self.plan)

    @cached_property
    def integer(self) -> IntegerModel:
        """The lowered model; its raw input are codes."""
        ones = (1.0,) * self.config.d_in
        zeros = (0.0,) * self.config.d_in
        preprocessing = Preprocessing(dtype="float32", scale=ones, offset=zeros)
        return lower(self.model, spec=self.spec, plan=self.plan, preprocessing=preprocessing)

    @cached_property
    def codes(self) -> np.ndarray:
        """The input in codes of its grid, (B, L, D) int64."""
        grid = dict(self.plan.grids)["input"]
        q = np.floor(self.x / float(grid.step) + 0.5)
        return np.clip(q, grid.format.low, grid.format.high).astype(np.int64)

    def fake_quant(self) -> dict[str, np.ndarray]:
        """Codes of every site under the exact forward pass, jitted, batch-major like the reference's."""
        lengths = None if self.lengths is None else jnp.asarray(self.lengths)
        values = _sites(self.model, jnp.asarray(np.swapaxes(self.x, 0, 1)), lengths, self.arithmetic)
        grids = dict(self.plan.grids)
        codes = {site: np.asarray(v) / step_for(grids[site], v) for site, v in values.items()}
        return {site: np.swapaxes(q, 0, 1) if q.ndim == 3 else q for site, q in codes.items()}


@eqx.filter_jit
def _sites(
    model: S5Model, x: jax.Array, lengths: jax.Array | None, arithmetic: Arithmetic
) -> dict[str, jax.Array]:
    seen: dict[str, jax.Array] = {}
    tapped = Tapped(arithmetic, lambda s: seen.__setitem__(s.site, s.value))
    forward(model, x, arithmetic=tapped, lengths=lengths)
    return seen


@cache
def random_case(seed: int, *, large: bool = False) -> Case:
    """Every choice that a lowered model can have, drawn at random. large: H >= 96 and P >= 128.

    The same object for the same seed: what it computes, it computes once for all tests of a process.
    """
    rng = np.random.default_rng(1000 + seed)

    def pick(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    regression = not large and rng.random() < 0.2
    conj_sym = bool(rng.random() < 0.85)
    config = ModelConfig(
        d_in=int(pick(1, 2, 3, 7)),
        d_out=int(pick(1, 2, 10) if regression else pick(2, 3, 10)),
        layers=int(pick(1, 2)) if large else int(pick(1, 2, 3)),
        H=int(pick(96, 97, 128)) if large else int(rng.integers(1, 33)),
        P=int(pick(128, 160)) if large else 2 * int(rng.integers(1, 17)),
        activation=pick("gelu", "half_glu1", "half_glu2", "full_glu"),
        norm=pick("batch", "layer"),
        prenorm=bool(rng.random() < 0.8),
        norm_bias=bool(rng.random() < 0.7),
        bidirectional=bool(rng.random() < 0.3),
        conj_sym=conj_sym,
        clip_eigs=bool(rng.random() < 0.3),
        discretization=pick("zoh", "bilinear"),
        pooling=pick("mean", "last"),
        head="regression" if regression else "classification",
        gelu=pick("gelu", "qgelu"),
        gate=pick("sigmoid", "hard_sigmoid"),
    )
    bits = {name: int(rng.integers(2, 9)) for name in ("b", "c", "d", "dense", "ssm_act", "act")}
    bits["a"] = int(pick(16, 16, 8, 4, 2, 12))
    bits["state"] = int(pick(16, 16, 8, 12))
    bits["residual"] = int(pick(16, 16, 12))
    spec = spec_of(",".join(f"{k}={v}" for k, v in bits.items()) + f",observer={pick('mse', 'minmax')}")
    if conj_sym and seed % 3 == 0:
        spec = spec.replace(form="polar", a=min(spec.a or 8, 8), name=f"{spec.name},form=polar")
    return Case(
        config=config,
        spec=spec,
        L=int(pick(1, 2, 3, 17, 64, 200)),
        B=int(pick(1, 2, 5)),
        seed=seed,
        padded=bool(rng.random() < 0.3) and not regression,
    )
