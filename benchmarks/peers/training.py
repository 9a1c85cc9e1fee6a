"""Groups of training steps (loss and gradient): float formulations, and quantization-aware training beside AQT."""

# PyTorch and s5-pytorch are in the extra bench alone.
# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.peer import Group, Missing, Ready, needs
from benchmarks.training_step import OfficialFormulation
from qs5.model.arithmetic import Arithmetic, FloatArithmetic
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model, forward, init_model, trainable
from qs5.model.recurrence import scan_sequential
from qs5.quantization.build import arithmetic_for_spec
from qs5.quantization.calibration import calibrate, plan_grids
from qs5.quantization.spec import spec_of

BATCH, LENGTH, THREADS = 50, 784, 2
QAT_BATCH = 10
"""AQT stores every quantized operand at every node of the tree: 50 sequences would take tens of GB."""
CONFIG = ModelConfig(d_in=1, d_out=10, layers=4, H=96, P=128, norm="layer", dropout=0.0)
QAT_CONFIG = CONFIG.replace(layers=1, norm_bias=False, gelu="qgelu", gate="hard_sigmoid")
"""One layer, between encoder and decoder: XLA compiles four of AQT's for many minutes."""
PAPER_SPEC = "W8A8,schedule=parallel,range_rule=aqt,quantized_backward=true"
QAT_TOLERANCE = 0.05
"""AQT and ours round the same numbers, but for those that fall to the other side of a tie by float32's last bit."""
FLOAT, OFFICIAL, AQT_FLOAT = (
    "qs5, native kernels",
    "official formulation (JAX, ours)",
    "AQT's formulation in float",
)
QS5_FLOAT = "qs5 float, native kernels"
AQT, PAPER_WAY = "AQT W8A8 (aqtp, ours)", "qs5 W8A8, the paper's way (parallel scan, JAX)"

Data = tuple[np.ndarray, np.ndarray]
Loss = Callable[[S5Model], tuple[jax.Array, jax.Array]]


def data(batch: int, length: int) -> Data:
    """Real x (B, L, 1) in 0..1, labels (B,)."""
    rng = np.random.default_rng(0)
    return rng.uniform(size=(batch, length, 1)).astype(np.float32), rng.integers(0, 10, batch).astype(
        np.int32
    )


def float_group(*, batch: int = BATCH, length: int = LENGTH, config: ModelConfig = CONFIG) -> Group:
    """Float training."""
    model, sample = init_model(jax.random.key(0), config), data(batch, length)
    ours = partial(arithmetic_step, model, sample)
    return Group(
        key="training",
        title="Training step, float",
        about=f"Loss and gradient of {describe(config)}, batch {batch}, {length} steps, {THREADS} threads.",
        tokens=batch * length,
        variants={
            FLOAT: lambda: ours(FloatArithmetic()),
            "qs5, JAX alone": lambda: ours(FloatArithmetic(scan_sequential)),
            OFFICIAL: lambda: ours(OfficialFormulation()),
            "s5-pytorch's operator, eager": lambda: torch_step(model, sample, package=True),
            "PyTorch, chunked scan (ours), eager": lambda: torch_step(model, sample),
            "PyTorch, chunked scan (ours), torch.compile": lambda: torch_step(model, sample, compiled=True),
        },
    )


def qat_group(*, batch: int = QAT_BATCH, length: int = LENGTH, config: ModelConfig = QAT_CONFIG) -> Group:
    """Quantization-aware training; the reference is qs5 in float."""
    model, sample = init_model(jax.random.key(0), config), data(batch, length)
    return Group(
        key="qat",
        title="Training step, quantized (QAT)",
        about=(
            f"Loss and gradient of {describe(config)} with qGELU and hard sigmoid, batch {batch}, {length} steps, "
            f"{THREADS} threads. AQT: the paper's code typed again on aqtp 0.9 (the release that it needs is "
            "gone), quantized products inside the associative scan, quantized backward pass."
        ),
        tokens=batch * length,
        variants={
            QS5_FLOAT: lambda: arithmetic_step(model, sample, FloatArithmetic()),
            "qs5 QAT W8A8Abar16, native kernels": lambda: static_step(model, sample, "W8A8Abar16"),
            "qs5 QAT W8A8, native kernels": lambda: static_step(model, sample, "W8A8"),
            PAPER_WAY: lambda: paper_step(model, sample),
            AQT_FLOAT: lambda: aqt_step(model, sample, None),
            AQT: lambda: aqt_step(model, sample, 8),
        },
        compare={AQT: PAPER_WAY},
    )


def describe(c: ModelConfig) -> str:
    """Sizes in words."""
    layers = "1 layer" if c.layers == 1 else f"{c.layers} layers"
    return f"an S5 network of {layers}, H = {c.H}, P = {c.P}, layer norm, half-GLU"


# -- JAX ---------------------------------------------------------------------------------------------------------


def gradient_step(model: S5Model, loss_of: Loss) -> Ready:
    """`loss_of(model)` gives (loss, logits); its gradient, compiled."""
    trained, fixed = eqx.partition(model, trainable(model))

    @jax.jit
    def step(trained: S5Model) -> Any:
        return jax.value_and_grad(lambda t: loss_of(eqx.combine(t, fixed)), has_aux=True)(trained)

    def call() -> Any:
        return jax.block_until_ready(step(trained))

    (_, logits), grads = call()
    outputs = {"logits": logits, "the encoder's gradient": grads.encoder.weight}
    return Ready(call, {name: np.asarray(a) for name, a in outputs.items()})


def cross_entropy(logits: jax.Array, labels: np.ndarray) -> jax.Array:
    """Mean over the batch."""
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])


def arithmetic_step(model: S5Model, sample: Data, arithmetic: Arithmetic) -> Ready:
    """The network under an arithmetic."""
    x, y = jnp.asarray(sample[0]), sample[1]

    def loss(model: S5Model) -> Any:
        out = forward(model, jnp.swapaxes(x, 0, 1), arithmetic=arithmetic).value
        return cross_entropy(out, y), out

    return gradient_step(model, loss)


def static_step(model: S5Model, sample: Data, spec: str) -> Ready:
    """qs5's deployable way."""
    chosen = spec_of(spec)
    stats = calibrate(model, [(jnp.swapaxes(jnp.asarray(sample[0]), 0, 1), None)], data="random")
    arithmetic = arithmetic_for_spec(chosen, model.config, plan_grids(stats, chosen, model.config))
    return unchecked(
        arithmetic_step(model, sample, arithmetic), "another function: static grids, 16-bit state"
    )


def paper_step(model: S5Model, sample: Data) -> Ready:
    """qs5's reproduction of the paper."""
    arithmetic = arithmetic_for_spec(spec_of(PAPER_SPEC), model.config, None)
    return arithmetic_step(model, sample, arithmetic)._replace(
        tolerance=float("inf"), note="8 bits: distance is to float"
    )


def unchecked(made: Ready, note: str) -> Ready:
    """Quantized: its outputs are compared with nothing here (tests do)."""
    return made._replace(outputs={}, note=note)


def aqt_step(model: S5Model, sample: Data, bits: int | None) -> Ready:
    """The paper's code, typed again; 8 bits are compared with qs5's own paper arithmetic, logits alone."""
    if bits is not None:
        needs("aqt")
    from benchmarks.peers.aqt_s5 import logits

    def loss(model: S5Model) -> Any:
        out = logits(model, jnp.asarray(sample[0]), bits=bits)
        return cross_entropy(out, sample[1]), out

    made = gradient_step(model, loss)
    if bits is None:
        return made
    # An 8-bit backward pass is mostly rounding noise at the encoder: its gradient tells nothing. Tests compare AQT's
    # gradients product by product.
    outputs = {"logits": made.outputs["logits"]}
    return made._replace(outputs=outputs, tolerance=QAT_TOLERANCE, note="distance is to qs5's paper way")


# -- PyTorch -----------------------------------------------------------------------------------------------------


def torch_step(model: S5Model, sample: Data, *, package: bool = False, compiled: bool = False) -> Ready:
    """Our PyTorch network, its operator ours or s5-pytorch's."""
    needs("torch", *(("s5",) if package else ()))
    import torch

    from benchmarks.peers import torch_s5

    if not package and sample[0].shape[1] % torch_s5.CHUNK:
        raise Missing(f"the chunked scan takes lengths that are multiples of {torch_s5.CHUNK}")
    torch.set_num_threads(THREADS)
    network = torch_s5.Network(model, torch_s5.s5_pytorch if package else torch_s5.Chunked)
    run: Any = torch.compile(network) if compiled else network
    x, y = torch.tensor(sample[0]), torch.tensor(sample[1], dtype=torch.int64)

    def call() -> Any:
        network.zero_grad(set_to_none=True)
        logits = run(x)
        torch.nn.functional.cross_entropy(logits, y).backward()
        return logits

    outputs = {"logits": call(), "the encoder's gradient": network.encoder_weight.grad}
    return Ready(call, {name: a.detach().numpy().copy() for name, a in outputs.items()})
