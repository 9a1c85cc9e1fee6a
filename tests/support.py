"""What tests of several packages share: small models, a small task, an arithmetic that notes every site."""

import functools
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qs5.model.arithmetic import FloatArithmetic, Normed, Signal
from qs5.model.config import ModelConfig
from qs5.model.discretize import Complex
from qs5.model.files import dotted
from qs5.model.network import Output, S5Model, forward, init_model
from qs5.tasks.task import Encoding, Split, Task
from qs5.training.options import TrainOptions
from qs5.training.recipe import Recipe

SIZES: dict[str, Any] = {"d_in": 3, "d_out": 4, "layers": 2, "H": 6, "P": 8}
RANGES = {
    "Lambda_re": (-1.0, -0.2),
    "Lambda_im": (-6.0, -1.0),
    "log_step": (-3.0, -1.0),
    "scale": (0.7, 1.3),
    "var": (0.7, 1.3),
}
"""Random parameters lie in -0.6..0.6, but for these."""


def small_config(**changes: Any) -> ModelConfig:
    """A network that compiles and runs in no time."""
    return ModelConfig(**{**SIZES, **changes})


def small_model(seed: int = 0, **changes: Any) -> S5Model:
    """A small network with every parameter random, and states that matter over a few steps."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        low, high = RANGES.get(dotted(path).rsplit(".", 1)[-1], (-0.6, 0.6))
        return jnp.asarray(rng.uniform(low, high, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(small_config(**changes)))


@functools.cache
def shapes_of(config: ModelConfig) -> S5Model:
    """The tree of a network without its numbers."""
    return eqx.filter_eval_shape(init_model, jax.random.key(0), config)


def small_inputs(*, B: int = 4, L: int = 7, d: int = SIZES["d_in"], seed: int = 1) -> jax.Array:
    """Random (B, L, d)."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=(B, L, d)), jnp.float32)


def small_task(**changes: Any) -> Task:
    """A classification that a small network learns in a few steps: 3 classes, one channel, L = 12."""
    rng = np.random.default_rng(7)
    splits = {name: _small_split(rng, n) for name, n in (("train", 26), ("validation", 10), ("test", 8))}
    fixed: dict[str, Any] = {
        "name": "small",
        "encoding": Encoding(scale=(0.5,), offset=(0.25,)),
        "classes": ("a", "b", "c"),
        "units": None,
        "objective": "classification",
        "metric": "accuracy",
    }
    return Task(**{**fixed, **splits, **changes})


def _small_split(rng: np.random.Generator, n: int) -> Split:
    y = rng.integers(0, 3, n).astype(np.int32)
    x = rng.normal(size=(n, 12, 1)) * 0.3 + (y - 1.0)[:, None, None]
    return Split(x=x.astype(np.float32), y=y, lengths=None)


def small_recipe(**changes: Any) -> Recipe:
    """How to train on `small_task`: 4 epochs of 4 steps, dropout on."""
    train = {"epochs": 4, "batch_size": 6, "ssm_lr": 0.01, "lr": 0.02, "eval_batch_size": 4, **changes}
    model = small_config(d_in=1, d_out=3, dropout=0.1)
    return Recipe(task="small", model=model, train=TrainOptions(**train))


@eqx.filter_jit
def compiled_forward(model: S5Model, x: jax.Array, **options: Any) -> Output:
    """`forward` as one program: without jit each operation of each shape is compiled on its own, which takes longer."""
    return forward(model, x, **options)


def assert_same_bits(got: Any, expected: Any) -> None:
    """Two trees of the same structure with equal arrays, types included."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.asarray(mine).dtype == np.asarray(theirs).dtype
        np.testing.assert_array_equal(mine, theirs)


@dataclass(frozen=True, eq=False)
class Recording(FloatArithmetic):
    """The float model, noting in the order of the forward pass what it computes."""

    values: dict[str, jax.Array] = field(default_factory=dict)
    """Value of every site."""
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of the weights at every site of weights; real and imaginary part are a last axis of length 2."""
    dropped: list[tuple[jax.Array, jax.Array]] = field(default_factory=list)
    """Before and after every dropout."""

    def _note(self, signal: Signal, site: str) -> Signal:
        assert signal.site == site
        assert site not in self.values
        self.values[site] = signal.value
        return signal

    def enter(self, site: str, x: jax.Array) -> Signal:
        return self._note(super().enter(site, x), site)

    def dot(self, site: str, x: Signal, weight: jax.Array, bias: jax.Array | None) -> Signal:
        self.weights[f"{site}.weight"] = weight.shape
        return self._note(super().dot(site, x, weight, bias), site)

    def norm(self, site: str, x: Signal, norm: Any, *, batch_stats: bool) -> Normed:
        result = super().norm(site, x, norm, batch_stats=batch_stats)
        self._note(result.signal, site)
        return result

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        self.weights[f"{site}.weight"] = (*B_bar.re.shape, 2)
        return self._note(super().input_projection(site, u, B_bar), site)

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        # Both directions share Lambda-bar.
        self.weights[f"{site.removesuffix('_reverse')}.weight"] = (*Lambda_bar.re.shape, 2)
        return self._note(super().recurrence(site, Lambda_bar, Bu, x0, reverse=reverse), site)

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        self.weights.update({f"{site}.C": (*C.re.shape, 2), f"{site}.D": D.shape})
        return self._note(super().output_projection(site, states, u, C, D, factor=factor), site)

    def pointwise(self, site: str, name: str, x: Signal) -> Signal:
        return self._note(super().pointwise(site, name, x), site)

    def multiply(self, site: str, a: Signal, b: Signal) -> Signal:
        return self._note(super().multiply(site, a, b), site)

    def add(self, site: str, a: Signal, b: Signal) -> Signal:
        return self._note(super().add(site, a, b), site)

    def dropout(self, x: Signal, key: jax.Array, rate: float) -> Signal:
        result = super().dropout(x, key, rate)
        self.dropped.append((x.value, result.value))
        return result

    def pool(self, site: str, x: Signal, lengths: jax.Array | None, kind: Any) -> Signal:
        return self._note(super().pool(site, x, lengths, kind), site)

    def pair_features(self, site: str, x: Signal) -> Signal:
        return self._note(super().pair_features(site, x), site)
