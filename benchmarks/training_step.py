"""One training step (loss and gradient, batch 50) of the paper's sMNIST model, in every formulation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.interleaved import Timing, interleave
from qs5.model.arithmetic import Arithmetic, FloatArithmetic, Signal
from qs5.model.config import ModelConfig
from qs5.model.discretize import Complex
from qs5.model.network import S5Model, init_model, trainable
from qs5.model.recurrence import scan_associative, scan_sequential
from qs5.quantization.build import arithmetic_for_spec
from qs5.quantization.calibration import calibrate, plan_grids
from qs5.quantization.spec import spec_of
from qs5.quantization.static import StaticArithmetic
from qs5.tasks.task import Encoding
from qs5.training.loop import batch_loss

BATCH, LENGTH = 50, 784
CONFIG = ModelConfig(d_in=1, d_out=10, layers=4, H=96, P=128, dropout=0.1)
FLOAT = "float, sequential scan"
NATIVE = "native kernels"
SPECS = {
    "QAT W8A8Abar16, simulated": "W8A8Abar16",
    "QAT W8A8Abar16, exact integers": "W8A8Abar16,exact=true",
    "QAT W8A8, simulated": "W8A8",
    "QAT W8A8, exact integers": "W8A8,exact=true",
}


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


def measure(rounds: int) -> dict[str, Timing]:
    """Ratios to the float step with the sequential scan, which is JAX alone, as are all rows not called native."""
    model = init_model(jax.random.key(0), CONFIG)
    x = jax.random.randint(jax.random.key(1), (BATCH, LENGTH, 1), 0, 256).astype(jnp.uint8)
    y = jax.random.randint(jax.random.key(2), (BATCH,), 0, 10)
    steps = {name: _step(a, model, x, y) for name, a in _arithmetics(model, x).items()}
    return interleave(steps, reference=FLOAT, rounds=rounds)


def _arithmetics(model: S5Model, x: jax.Array) -> dict[str, Arithmetic]:
    real = jnp.swapaxes(x.astype(jnp.float32) / 255.0, 0, 1)
    stats = calibrate(model, [(real, None)], data="random")
    found: dict[str, Arithmetic] = {
        FLOAT: FloatArithmetic(scan_sequential),
        "float, official formulation": OfficialFormulation(),
        "float, associative scan, packed real products": FloatArithmetic(scan_associative),
    }
    if FloatArithmetic().takes_whole_layers:
        found[f"float, {NATIVE}"] = FloatArithmetic()
    for name, text in SPECS.items():
        spec = spec_of(text)
        arithmetic = arithmetic_for_spec(spec, CONFIG, plan_grids(stats, spec, CONFIG))
        found[name] = arithmetic
        if isinstance(arithmetic, StaticArithmetic):
            found[name] = dataclasses.replace(arithmetic, kernels=False)
            if arithmetic.takes_whole_layers:
                found[f"{name}, {NATIVE}"] = arithmetic
    return found


def _step(arithmetic: Arithmetic, model: S5Model, x: jax.Array, y: jax.Array) -> Callable[[], Any]:
    """Loss and gradient. Quantized steps fold the running statistics, as fine-tuning does."""
    trained, fixed = eqx.partition(model, trainable(model))
    encoding = Encoding(scale=(1 / 255,), offset=(0.0,))
    batch_stats = isinstance(arithmetic, FloatArithmetic)

    @jax.jit
    def gradient(trained: S5Model, key: jax.Array) -> Any:
        def loss(trained: S5Model) -> Any:
            return batch_loss(
                eqx.combine(trained, fixed), x, y, None, key,
                arithmetic=arithmetic, encoding=encoding, loss="cross_entropy", batch_stats=batch_stats,
            )  # fmt: skip

        return jax.value_and_grad(loss, has_aux=True)(trained)

    return lambda: jax.block_until_ready(gradient(trained, jax.random.key(3)))
