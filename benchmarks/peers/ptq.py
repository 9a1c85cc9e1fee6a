"""Post-training quantization: calibration, grids and integer weights, and nothing else (no loading, no judging)."""

from typing import Any

import numpy as np

from benchmarks.peers.inference import CALIBRATION, Subject
from benchmarks.peers.peer import Group, Ready, needs
from qs5.lowering.lower import DEFAULT_MAX_LENGTH, Labels, Preprocessing, lower
from qs5.quantization.calibration import plan_grids
from qs5.quantization.spec import spec_of
from qs5.training import methods

SPEC = "W8A8Abar16,exact=true"


def group(subject: Subject, *, examples: int = methods.CALIBRATION_EXAMPLES) -> Group:
    """The forward pass over the calibration images is the reference: calibration is one such pass that looks on."""
    n = min(examples, len(subject.task.train))
    return Group(
        key="ptq",
        title="Post-training quantization",
        about=(
            f"The zoo's sMNIST model; qs5 calibrates on {n} sequences of {subject.task.length} steps, ONNX Runtime's "
            f"static quantization (matrix products alone) on {CALIBRATION}: compare tokens a second."
        ),
        tokens=n * subject.task.length,
        variants={
            "forward pass of the same sequences, qs5 float": lambda: forward_pass(subject, n),
            "qs5: calibration alone": lambda: Ready(
                lambda: methods.calibration_stats(subject.model, subject.task, examples=n), {}
            ),
            "qs5: PTQ (calibration, grids, integer weights)": lambda: quantize(subject, n),
            "ONNX Runtime, static": lambda: onnx_static(subject),
        },
    )


def forward_pass(subject: Subject, n: int) -> Ready:
    """As `qs5 evaluate` runs it."""
    from qs5.model.arithmetic import FloatArithmetic
    from qs5.training.evaluate import evaluate

    split = subject.task.train.take(np.arange(n))

    def run() -> object:
        return evaluate(
            subject.model,
            split,
            task=subject.task,
            arithmetic=FloatArithmetic(),
            batch_size=methods.CALIBRATION_BATCH,
        )

    return Ready(run, {})


def quantize(subject: Subject, n: int) -> Ready:
    """From the float model to the integer model."""
    spec = spec_of(SPEC)

    encoding: Any = subject.task.encoding
    raw = Preprocessing(dtype="uint8", scale=encoding.scale, offset=encoding.offset)

    def run() -> object:
        model = subject.model
        stats = methods.calibration_stats(model, subject.task, examples=n)
        plan = plan_grids(stats, spec, model.config)
        return lower(
            model, spec=spec, plan=plan, preprocessing=raw, labels=Labels(), max_length=DEFAULT_MAX_LENGTH
        )

    return Ready(run, {})


def onnx_static(subject: Subject) -> Ready:
    """Calibration step by step, then weights."""
    needs("onnx", "onnxruntime")
    from benchmarks.peers import onnx_peers

    u = subject.calibration
    run = lambda: onnx_peers.static_graph(subject.parameters, u)  # noqa: E731
    return Ready(run, {}, f"on {len(u)} sequences", tokens=u.size)
