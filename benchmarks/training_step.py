"""One training step of an S5 network in some formulation: loss and gradient, or all that `qs5 train` does."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from qs5.model.arithmetic import Arithmetic, FloatArithmetic, Signal
from qs5.model.config import ModelConfig
from qs5.model.discretize import Complex
from qs5.model.network import S5Model, init_model, trainable
from qs5.quantization.build import arithmetic_for_spec
from qs5.quantization.calibration import calibrate, plan_grids
from qs5.quantization.dynamic import DynamicArithmetic
from qs5.quantization.spec import spec_of
from qs5.quantization.static import StaticArithmetic
from qs5.tasks.task import Encoding
from qs5.training.loop import batch_loss, compiled, training_step
from qs5.training.options import TrainOptions

PIXELS = Encoding(scale=(1 / 255,), offset=(0.0,))
EPOCH = 60_000
"""Sequences of sMNIST's training data."""
CALIBRATION_LENGTH = 64
"""Grids are data: a short sequence gives a program of the same speed."""


class OfficialFormulation(FloatArithmetic):
    """The products of lindermanlab/S5's `apply_ssm`, typed again: complex64 B-bar u and C x, associative scan."""

    def input_projection(self, site: str, u: Signal, B_bar: Complex) -> Signal:
        return Signal(u.value.astype(jnp.complex64) @ lax.complex(B_bar.re, B_bar.im).T, site)

    def recurrence(
        self, site: str, Lambda_bar: Complex, Bu: Signal, x0: jax.Array | None, *, reverse: bool
    ) -> Signal:
        L, M = Bu.value.shape[0], Bu.value.shape[-1]
        A = jnp.broadcast_to(lax.complex(Lambda_bar.re, Lambda_bar.im)[None, None], (L, 1, M))

        def combine(i: Any, j: Any) -> Any:
            return j[0] * i[0], j[0] * i[1] + j[1]

        return Signal(lax.associative_scan(combine, (A, Bu.value))[1], site)

    def output_projection(
        self, site: str, states: tuple[Signal, ...], u: Signal, C: Complex, D: jax.Array, *, factor: float
    ) -> Signal:
        y = factor * (states[0].value @ lax.complex(C.re, C.im).T).real
        return Signal(y + u.value * D[None, None], site)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A training step: the network, and what it computes with.

    spec: QAT under it, from running statistics as fine-tuning does; None: float.
    arithmetic: of a float step; None: `FloatArithmetic` with native kernels.
    kernels: of a quantized step, native ones, or JAX alone.
    optimizer: the whole step of `qs5 train`, else loss and gradient.
    """

    config: ModelConfig
    arithmetic: Arithmetic | None = None
    spec: str | None = None
    kernels: bool = True
    optimizer: bool = False

    def call(self, *, batch: int, length: int) -> Callable[[], object]:
        """The step on random images of one channel."""
        model = init_model(jax.random.key(0), self.config)
        shape, classes = (batch, length, self.config.d_in), self.config.d_out
        x = jax.random.randint(jax.random.key(1), shape, 0, 256).astype(jnp.uint8)
        y = jax.random.randint(jax.random.key(2), (batch,), 0, classes)
        make = whole_step if self.optimizer else gradient_step
        return make(self._arithmetic(model, x), model, x, y)

    def _arithmetic(self, model: S5Model, x: jax.Array) -> Arithmetic:
        if self.spec is None:
            return self.arithmetic or FloatArithmetic()
        real = jnp.swapaxes(x[:, :CALIBRATION_LENGTH].astype(jnp.float32) / 255.0, 0, 1)
        spec, stats = spec_of(self.spec), calibrate(model, [(real, None)], data="random")
        arithmetic = arithmetic_for_spec(spec, model.config, plan_grids(stats, spec, model.config))
        if isinstance(arithmetic, StaticArithmetic | DynamicArithmetic):
            return dataclasses.replace(arithmetic, kernels=self.kernels)
        return arithmetic


def gradient_step(arithmetic: Arithmetic, model: S5Model, x: jax.Array, y: jax.Array) -> Callable[[], object]:
    """Loss and gradient."""
    trained, fixed = eqx.partition(model, trainable(model))
    batch_stats = model.config.norm == "batch" and isinstance(arithmetic, FloatArithmetic)

    @jax.jit
    def gradient(trained: S5Model, key: jax.Array) -> Any:
        def loss(trained: S5Model) -> Any:
            return batch_loss(
                eqx.combine(trained, fixed), x, y, None, key,
                arithmetic=arithmetic, encoding=PIXELS, loss="cross_entropy", batch_stats=batch_stats,
            )  # fmt: skip

        return jax.value_and_grad(loss, has_aux=True)(trained)

    return lambda: jax.block_until_ready(gradient(trained, jax.random.key(3)))


def whole_step(arithmetic: Arithmetic, model: S5Model, x: jax.Array, y: jax.Array) -> Callable[[], object]:
    """Loss, gradient and optimizer, always from the same model: time does not depend on the numbers."""
    quantized = not isinstance(arithmetic, FloatArithmetic)
    options = TrainOptions(batch_size=x.shape[0], freeze_statistics=quantized)
    made = training_step(model, PIXELS, "cross_entropy", options, EPOCH // x.shape[0])
    step, opt_state = compiled(made.step, options), made.optimizer.init(eqx.filter(model, trainable(model)))
    return lambda: jax.block_until_ready(
        step(model, opt_state, x, y, None, jax.random.key(3), arithmetic)[1:]
    )
