"""ONNX: an integer model as one graph of integer ops, and onnxruntime to run it, bit-identical to the reference.

    export(model, Path("model.onnx"))
    OnnxRunner(Path("model.onnx")).logits(raw)

Needs the packages onnx (to export) and onnxruntime (to run): pip install 'qs5[onnx]'. Imported where they are used.
"""

import numpy as np

from qs5.backends.onnx.graph import export, to_onnx
from qs5.backends.onnx.runner import OnnxRunner, OnnxStream
from qs5.integer.model import IntegerModel

__all__ = ["OnnxRunner", "OnnxStream", "export", "logits", "to_onnx"]


def logits(model: IntegerModel, raw: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Whole sequences in one call: (B, classes), or (B, L, outputs) of a regression. See `OnnxRunner.logits`."""
    return OnnxRunner.of(model).logits(raw, lengths)
