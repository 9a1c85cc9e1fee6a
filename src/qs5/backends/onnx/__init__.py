"""ONNX: an integer model as one graph of integer ops, and onnxruntime to run it, bit-identical to the reference.

    export(model, Path("model.onnx"))
    OnnxRunner(Path("model.onnx")).logits(raw)

Needs the packages onnx (to export) and onnxruntime (to run): pip install 'qs5[onnx]'. Imported where they are used.
"""

import importlib.util

import numpy as np

from qs5.backends.onnx.engine import OnnxEngine
from qs5.backends.onnx.graph import export, to_onnx
from qs5.backends.onnx.runner import OnnxRunner, OnnxStream
from qs5.integer.model import IntegerModel

__all__ = ["OnnxEngine", "OnnxRunner", "OnnxStream", "available", "engine", "export", "logits", "to_onnx"]


def available() -> bool:
    """Whether the packages onnx and onnxruntime are here."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


def engine(model: IntegerModel) -> OnnxEngine:
    """The model in onnxruntime."""
    return OnnxEngine(model)


def logits(model: IntegerModel, raw: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Whole sequences in one call: (B, classes), or (B, L, outputs) of a regression. See `OnnxRunner.logits`."""
    return OnnxRunner.of(model).logits(raw, lengths)
