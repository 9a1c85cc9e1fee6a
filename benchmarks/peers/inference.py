"""Groups of inference: the zoo's sMNIST model, integer in qs5's engines, float and int8 in others. Real test images."""

# PyTorch and s5-pytorch are in the extra bench alone.
# pyright: reportMissingImports=false

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.native.parameters import Parameters
from benchmarks.peers.folded import decoded, folded
from benchmarks.peers.peer import Group, Missing, Ready, needs, same_classes
from benchmarks.training_step import OfficialFormulation
from qs5 import integer
from qs5.model.arithmetic import Arithmetic, FloatArithmetic
from qs5.model.network import S5Model, forward
from qs5.tasks.task import Task

FLOAT_ZOO, INTEGER_ZOO = "smnist-float", "smnist-w8a8abar16"
BATCH, CHECKED, THREADS = 50, 50, 2
LEAST_SAME = 0.9
"""Share of sequences that a quantized peer must give the float model's class; below that it computes something else."""
CALIBRATION = 32
"""Sequences that onnxruntime's static quantization calibrates on."""
ENGINE = "qs5 integer, native engine"


@dataclass(frozen=True)
class Subject:
    """The trained model and real images. length: steps that are looked at, all 784 but in tests."""

    length: int | None = None

    @cached_property
    def _opened(self) -> tuple[S5Model, Task]:
        from qs5.cli import common

        model, info = common.open_run(FLOAT_ZOO)
        return model, common.load_for_judging(info.recipe, None, "test")

    @property
    def model(self) -> S5Model:
        return self._opened[0]

    @property
    def task(self) -> Task:
        return self._opened[1]

    @cached_property
    def raw(self) -> np.ndarray:
        """(N, L, 1) uint8 of the test split."""
        return np.ascontiguousarray(self.task.test.x[:CHECKED, : self.length])

    @cached_property
    def u(self) -> np.ndarray:
        """(N, L) float32, what `parameters` take."""
        return np.ascontiguousarray(self.raw[..., 0], np.float32)

    @cached_property
    def parameters(self) -> Parameters:
        """The float model for the step graphs; its encoder takes raw pixels."""
        return folded(self.model, scale=self.task.encoding.scale[0])  # type: ignore[union-attr]

    @cached_property
    def calibration(self) -> np.ndarray:
        """(n, L) float32 of the training split."""
        return np.ascontiguousarray(self.task.train.x[:CALIBRATION, : self.length, 0], np.float32)

    @cached_property
    def logits(self) -> np.ndarray:
        """Of the float model in qs5: what every float peer must give."""
        return np.asarray(self.model(jnp.asarray(self.raw) / 255.0))

    def decoded(self, sums: Any) -> np.ndarray:
        """Logits of a peer that gives the sums of the pool."""
        return decoded(self.model, np.asarray(sums), self.raw.shape[1])


def streaming_group(subject: Subject) -> Group:
    """Batch 1, a call from Python each step."""
    u = subject.u[:1]
    return Group(
        key="streaming",
        title="Inference, streaming",
        about=(
            f"The zoo's {FLOAT_ZOO} and {INTEGER_ZOO}, batch 1, one call from Python each step, one thread (JAX: two); "
            "int8 of ONNX Runtime: matrix products alone."
        ),
        tokens=u.shape[1],
        variants={
            ENGINE: lambda: engine_stepwise(subject),
            "qs5 integer, exported to ONNX": lambda: exported_stepwise(subject),
            "qs5 float, jax.jit of a step": lambda: jax_stepwise(subject),
            **{
                f"ONNX Runtime {name}": partial(onnx_stepwise, subject, graph, batch=1, threads=1)
                for name, graph in GRAPHS.items()
            },
            "PyTorch float32, eager": lambda: torch_stepwise(subject, compiled=False),
            "PyTorch float32, torch.compile": lambda: torch_stepwise(subject, compiled=True),
        },
    )


def batched_group(subject: Subject) -> Group:
    """Whole sequences, batch 50."""
    return Group(
        key="batched",
        title="Inference, batched",
        about=f"The same models, batch {BATCH}, {THREADS} threads; what is called once a step has one.",
        tokens=len(subject.raw) * subject.raw.shape[1],
        variants={
            ENGINE: lambda: engine_batched(subject),
            "qs5 integer, exported to ONNX": lambda: exported_batched(subject),
            "qs5 float, native kernels": lambda: jax_batched(subject, FloatArithmetic()),
            "official formulation (JAX, ours)": lambda: jax_batched(subject, OfficialFormulation()),
            **{
                f"ONNX Runtime {name}": partial(onnx_stepwise, subject, graph, batch=BATCH, threads=1)
                for name, graph in GRAPHS.items()
            },
            "PyTorch float32, eager, called a step": lambda: torch_stepwise(
                subject, compiled=False, batch=BATCH
            ),
        },
    )


# -- checks ------------------------------------------------------------------------------------------------------


def float_peer(subject: Subject, call: Callable[[], object], logits: np.ndarray) -> Ready:
    """Must give the float model's logits."""
    from benchmarks.peers.peer import TOLERANCE, distance

    off = distance(logits, subject.logits)
    if not off <= TOLERANCE:
        raise Missing(f"computes something else: logits are off by {off:.2g} (relative L2)")
    return Ready(call, {}, f"logits within {off:.1g} of float")


def quantized_peer(subject: Subject, call: Callable[[], object], logits: np.ndarray) -> Ready:
    """Must give nearly always the float model's class."""
    note = same_classes(logits, subject.logits)
    if int(note.split()[0]) < LEAST_SAME * len(subject.logits):
        raise Missing(f"computes something else: {note}")
    return Ready(call, {}, note)


# -- qs5 ---------------------------------------------------------------------------------------------------------


def _native(threads: int) -> Any:
    from qs5.backends import native

    if not native.available():
        raise Missing("the native engine is not built here")
    return native.NativeEngine(integer.load(INTEGER_ZOO), threads=threads)


def engine_stepwise(subject: Subject) -> Ready:
    """The engine of `qs5 run --stream`."""
    engine = _native(1)
    stream, raw = engine.stream(), subject.raw[:1]
    steps = [np.ascontiguousarray(raw[:, k : k + 1]) for k in range(raw.shape[1])]
    return quantized_peer(subject, lambda: [stream.run(step) for step in steps], engine.logits(subject.raw))


def engine_batched(subject: Subject) -> Ready:
    """The engine of `qs5 run`."""
    engine = _native(THREADS)
    return quantized_peer(subject, lambda: engine.logits(subject.raw), engine.logits(subject.raw))


def _exported(threads: int) -> Any:
    needs("onnx", "onnxruntime")
    from qs5.backends.onnx import OnnxRunner

    return OnnxRunner.of(integer.load(INTEGER_ZOO), threads=threads)


def exported_stepwise(subject: Subject) -> Ready:
    """`qs5 export onnx`, a call a step."""
    runner = _exported(1)
    stream, raw = runner.stream(batch=1), subject.raw[:1]
    steps = [raw[:, k : k + 1] for k in range(raw.shape[1])]
    return quantized_peer(subject, lambda: [stream.run(step) for step in steps], runner.logits(subject.raw))


def exported_batched(subject: Subject) -> Ready:
    """`qs5 export onnx`, whole sequences."""
    runner = _exported(THREADS)
    return quantized_peer(subject, lambda: runner.logits(subject.raw), runner.logits(subject.raw))


def jax_stepwise(subject: Subject) -> Ready:
    """The float network on one step with carried states."""
    model = subject.model

    @eqx.filter_jit
    def step(u: jax.Array, states: tuple[jax.Array, ...], total: jax.Array) -> Any:
        out = forward(model, u, arithmetic=FloatArithmetic(), states=states)
        return out.states, total + out.value

    def run(raw: np.ndarray) -> Any:
        x = np.swapaxes(raw.astype(np.float32) / 255.0, 0, 1)
        B, S = raw.shape[0], 2 * model.config.modes
        states, total = (jnp.zeros((B, S)),) * model.config.layers, jnp.zeros((B, model.config.d_out))
        for k in range(len(x)):
            states, total = step(jnp.asarray(x[k : k + 1]), states, total)
        return jax.block_until_ready(total)

    # The decoder is linear: the mean of its outputs is its output of the mean.
    logits = np.asarray(run(subject.raw)) / subject.raw.shape[1]
    run(subject.raw[:1])
    return float_peer(subject, lambda: run(subject.raw[:1]), logits)


def jax_batched(subject: Subject, arithmetic: Arithmetic) -> Ready:
    """The float network on whole sequences."""
    model = subject.model
    x = jnp.swapaxes(jnp.asarray(subject.raw) / 255.0, 0, 1)
    run = eqx.filter_jit(lambda x: forward(model, x, arithmetic=arithmetic).value)
    return float_peer(subject, lambda: jax.block_until_ready(run(x)), np.asarray(run(x)))


# -- others ------------------------------------------------------------------------------------------------------


def _float_graph(subject: Subject) -> bytes:
    from benchmarks.peers import onnx_peers

    return onnx_peers.float_graph(subject.parameters)


def _dynamic_graph(subject: Subject) -> bytes:
    from benchmarks.peers import onnx_peers

    return onnx_peers.dynamic_graph(subject.parameters)


def _static_graph(subject: Subject) -> bytes:
    from benchmarks.peers import onnx_peers

    return onnx_peers.static_graph(subject.parameters, subject.calibration)


GRAPHS = {
    "float32": (_float_graph, float_peer),
    "int8, dynamic": (_dynamic_graph, quantized_peer),
    "int8, static": (_static_graph, quantized_peer),
}


def onnx_stepwise(subject: Subject, graph: Any, *, batch: int, threads: int) -> Ready:
    """A step graph, a call a step."""
    needs("onnx", "onnxruntime")
    from benchmarks.peers.onnx_peers import StepGraph

    make, check = graph
    session, u = StepGraph(make(subject), threads=threads), subject.u[:batch]
    return check(subject, lambda: session.sums(u), subject.decoded(session.sums(subject.u)))


def torch_stepwise(subject: Subject, *, compiled: bool, batch: int = 1) -> Ready:
    """A step in PyTorch, a call a step."""
    needs("torch")
    import torch

    from benchmarks.peers.torch_step import TorchStep

    torch.set_num_threads(1)
    step, eager = (
        TorchStep(subject.parameters, compiled=compiled),
        TorchStep(subject.parameters, compiled=False),
    )
    few = torch.tensor(subject.u[:batch])
    if not compiled:
        sums = eager.run(torch.tensor(subject.u), eager.zeros(len(subject.u)))[1]
        return float_peer(subject, lambda: step.run(few, step.zeros(batch)), subject.decoded(sums))
    # Compiled for its own batch, so checked on that alone.
    logits = subject.decoded(step.run(few, step.zeros(batch))[1])
    both = np.concatenate([logits, subject.logits[batch:]])
    return float_peer(subject, lambda: step.run(few, step.zeros(batch)), both)
