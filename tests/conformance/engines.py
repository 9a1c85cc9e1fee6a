"""Every way to run an integer model that this computer has, by name."""

from collections.abc import Iterator

import numpy as np
import pytest

from qs5 import integer
from qs5.integer.engine import Engine
from qs5.integer.model import IntegerModel

COMPILED = ("c99", "onnx")


def engines(model: IntegerModel) -> Iterator[tuple[str, Engine]]:
    """The native engine on each instruction set, with one and two threads, the emitted C, and the ONNX graph."""
    from qs5.backends import native

    for level in native.levels():
        for threads in (1, 2):
            yield (
                f"native {level}, {threads} threads",
                native.NativeEngine(model, level=level, threads=threads),
            )
    for name in COMPILED:
        if integer.available(name):  # type: ignore[arg-type]
            yield name, integer.engine(model, name)  # type: ignore[arg-type]


def names() -> tuple[str, ...]:
    """Which engines `engines` gives here."""
    from qs5.backends import native

    compiled = tuple(name for name in COMPILED if integer.available(name))  # type: ignore[arg-type]
    return (*(f"native {level}" for level in native.levels()), *compiled)


def assert_engines_agree(
    model: IntegerModel, raw: np.ndarray, lengths: np.ndarray | None, expected: np.ndarray
) -> None:
    """Zero differing codes in any engine. The emitted C has no padding that a scan from the right could read."""
    if not names():
        pytest.skip("no engine but the reference: there is no compiler, and onnxruntime is missing")
    for name, engine in engines(model):
        if name == "c99" and model.bidirectional and model.padding == "fed" and lengths is not None:
            continue
        differing = int(np.sum(engine.logits(raw, lengths) != expected))
        assert differing == 0, f"{name}: {differing} of {expected.size} codes differ"
