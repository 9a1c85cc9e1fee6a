"""What is measured: one training step of a model of some size, in a process of its own."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPEC = "W8A8Abar16"
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 300.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """Layers of width H with P states on `batch` sequences of `length` steps; quantized: QAT under `SPEC`."""

    length: int = 1024
    batch: int = 8
    layers: int = 4
    H: int = 96
    P: int = 128
    threads: int = 2
    quantized: bool = False
    remat: bool = False

    @property
    def key(self) -> str:
        """Its name in the record."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.length * self.batch


BASE = Point()
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16_384)
WIDTHS = (32, 64, 96, 192, 384)
LAYERS = (1, 2, 4, 8)
BATCHES = (1, 2, 8, 32)
BIG_BATCH = 50
"""Where threads are compared: that of the sMNIST recipe."""


def axes() -> dict[str, list[Point]]:
    """Axis -> its points in float, in its order. Width sets H, and P in the proportion of the sMNIST model."""
    return {
        "length": [dataclasses.replace(BASE, length=n) for n in LENGTHS],
        "width": [dataclasses.replace(BASE, H=n, P=n * 4 // 3 // 4 * 4) for n in WIDTHS],
        "layers": [dataclasses.replace(BASE, layers=n) for n in LAYERS],
        "batch": [dataclasses.replace(BASE, batch=n) for n in BATCHES],
        "threads": [dataclasses.replace(BASE, batch=BIG_BATCH, threads=n) for n in (1, 2)],
    }


def all_points() -> list[Point]:
    """Every point once: the axes in float and QAT, and the lengths with remat."""
    return list(dict.fromkeys(_points()))


def _points() -> Iterator[Point]:
    for points in axes().values():
        for point in points:
            yield point
            yield dataclasses.replace(point, quantized=True)
    for point in axes()["length"]:
        yield dataclasses.replace(point, remat=True)


def run(point: Point, *, budget: float) -> dict[str, Any]:
    """Measure in a new process. Raises RuntimeError with what it said where it fails."""
    words = [sys.executable, "-m", "benchmarks.scaling", "--point", point.key, "--budget", str(budget)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)
    if done.returncode:
        raise RuntimeError(f"{point.key}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_here(point: Point, *, budget: float) -> dict[str, Any]:
    """Measure in this process, which must not have imported JAX yet: it counts processors when it starts."""
    assert "jax" not in sys.modules
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: point.threads])
    from qs5.cli.malloc import tune_malloc

    tune_malloc()
    from benchmarks.measured_step import measure, random_task
    from qs5.model.config import ModelConfig
    from qs5.training.options import TrainOptions

    config = ModelConfig(
        d_in=1, d_out=10, layers=point.layers, H=point.H, P=point.P, norm="layer", dropout=0.0
    )
    options = TrainOptions(batch_size=point.batch, remat=point.remat)
    task = random_task(length=point.length, sequences=point.batch)
    return measure(config, options, task, spec=SPEC if point.quantized else None, budget=budget)._asdict()
