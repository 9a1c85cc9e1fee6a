"""What is timed, and what is said about it."""

import platform
from collections.abc import Callable

import numpy as np

from benchmarks.interleaved import interleave
from benchmarks.native.compiled import compiled
from benchmarks.native.float_engine import FloatEngine
from benchmarks.native.integer_model import MACS, Bits, paper_model
from benchmarks.native.onnx_step import OnnxStep
from benchmarks.native.parameters import random_parameters
from qs5.backends.native import NativeEngine, NativeStream, levels

LENGTH, BATCH, BLOCK = 784, 50, 48
REPEATS = 8
"""A single sequence takes about a millisecond: too short to time once."""
PEAK_ROUNDS, PEAK_BYTES = 300_000, 16 * 64
PEAK = "sequence, its products alone at the measured int8 peak"
Variants = dict[str, tuple[Callable[[], object], int]]
"""Name -> call, tokens."""


def repeated(call: Callable[[], object]) -> Callable[[], object]:
    return lambda: [call() for _ in range(REPEATS)]


def stepwise(stream: NativeStream, raw: np.ndarray) -> Callable[[], object]:
    """A call from Python for each token."""
    steps = [np.ascontiguousarray(raw[:, k : k + 1]) for k in range(raw.shape[1])]
    return lambda: [stream.run(step) for step in steps]


def single(threads: int = 1) -> Variants:
    """Batch 1, one thread."""
    raw = np.random.default_rng(0).integers(0, 256, (1, LENGTH, 1)).astype(np.uint8)
    u = np.ascontiguousarray(raw[..., 0] / 255.0, np.float32)
    stream, floats = NativeEngine(paper_model(0), threads=threads).stream(), FloatEngine(random_parameters(0))
    onnx, records = OnnxStep(random_parameters(0), 1), np.zeros((1, floats.record), np.float32)
    n = REPEATS * LENGTH
    return {
        "step in C, int8": (repeated(lambda: stream.run(raw, block=1)), n),
        "step in C, float32": (repeated(lambda: floats.advance(u, records, block=1)), n),
        "step from Python, int8": (stepwise(stream, raw), LENGTH),
        "step from Python, ONNX Runtime float32": (lambda: onnx.run(u), LENGTH),
        "sequence, int8": (repeated(lambda: stream.run(raw)), n),
        "sequence, float32": (repeated(lambda: floats.advance(u, records, block=BLOCK)), n),
        **peak(),
    }


WIDTHS = {
    "W8A8Abar16": Bits(),
    "W4A8SSM8": Bits(dense=4),
    "W4A8Abar8": Bits(ssm=4, dense=4),
    "W2A8SSM8": Bits(dense=2),
    "W2A8Abar8": Bits(ssm=2, dense=2),
}
"""Widths of the weights as those specs have them. Lambda-bar's multipliers take the same time in all of them."""


def widths() -> Variants:
    """Batch 1, one thread: the same model with narrower weights."""
    raw = np.random.default_rng(0).integers(0, 256, (1, LENGTH, 1)).astype(np.uint8)
    streams = {name: NativeEngine(paper_model(0, bits)).stream() for name, bits in WIDTHS.items()}
    n = REPEATS * LENGTH
    steps = {
        f"step in C, {name}": (repeated(lambda s=s: s.run(raw, block=1)), n) for name, s in streams.items()
    }
    whole = {f"sequence, {name}": (repeated(lambda s=s: s.run(raw)), n) for name, s in streams.items()}
    return steps | whole


def batches() -> Variants:
    """Batch 50, one thread but where said."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (BATCH, LENGTH, 1)).astype(np.uint8)
    u = np.ascontiguousarray(raw[..., 0] / 255.0, np.float32)
    model, floats = paper_model(0), FloatEngine(random_parameters(0))
    one, two = NativeEngine(model).stream(BATCH), NativeEngine(model, threads=2).stream(BATCH)
    onnx, records = OnnxStep(random_parameters(0), BATCH), np.zeros((BATCH, floats.record), np.float32)
    n = BATCH * LENGTH
    return {
        "batch 50, int8": (lambda: one.run(raw), n),
        "batch 50, float32": (lambda: floats.advance(u, records, block=BLOCK), n),
        "batch 50, int8, two threads": (lambda: two.run(raw), n),
        "batch 50, step from Python, int8": (stepwise(one, raw), n),
        "batch 50, step from Python, ONNX Runtime float32": (lambda: onnx.run(u), n),
    }


def other_levels() -> Variants:
    """The sequence mode on the narrower instruction sets."""
    raw = np.random.default_rng(0).integers(0, 256, (1, LENGTH, 1)).astype(np.uint8)
    streams = {level: NativeEngine(paper_model(0), level=level).stream() for level in levels()}
    return {f"sequence, int8, {level}": (lambda s=s: s.run(raw), LENGTH) for level, s in streams.items()}


def peak() -> Variants:
    """The peak loop for as many multiply-accumulates as a token's products have, on x86 with AVX-512 VNNI."""
    if platform.machine() != "x86_64" or levels()[-1] != "avx512vnni":
        return {}
    library = compiled("peak")
    return {PEAK: (lambda: library.peak_int8(PEAK_ROUNDS), PEAK_ROUNDS * PEAK_BYTES // MACS)}


def time(variants: Variants, *, reference: str, rounds: int) -> dict[str, tuple[float, float]]:
    """Microseconds a token (median), and the median over rounds of how much faster the reference is."""
    timings = interleave(
        {name: call for name, (call, _) in variants.items()}, reference=reference, rounds=rounds
    )
    tokens = {name: n for name, (_, n) in variants.items()}
    return {
        name: (1e6 * t.seconds / tokens[name], t.ratio * tokens[reference] / tokens[name])
        for name, t in timings.items()
    }
