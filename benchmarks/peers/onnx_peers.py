"""ONNX Runtime peers: the float step graph of `benchmarks.native.onnx_step`, and ONNX Runtime's own int8 of it.

    dynamic   quantize_dynamic: weights in int8, activations quantized as they pass
    static    quantize_static: QDQ around every matrix product, ranges from calibration steps

Both quantize the matrix products alone; norm, recurrence and activations stay float32, so the state keeps its bits.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.native.onnx_step import step_model
from benchmarks.native.parameters import LAYERS, MODES, H, Parameters

NAMES = [f"{part}{i}" for i in range(LAYERS) for part in ("re", "im")] + ["total"]
PRODUCTS = ["MatMul", "Gemm"]


def zeros(batch: int) -> list[np.ndarray]:
    """The states before the first step."""
    return [np.zeros((batch, H if name == "total" else MODES), np.float32) for name in NAMES]


class StepGraph:
    """A step graph in ONNX Runtime, called once a step."""

    def __init__(self, graph: bytes, *, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

    def run(self, u: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
        """Steps u (B, L) from `states`; gives the states after them, the last one the sums of the pool."""
        for k in range(u.shape[1]):
            feed = dict(zip(NAMES, states, strict=True)) | {"u": u[:, k : k + 1]}
            outputs: Any = self._session.run(None, feed)
            states = outputs
        return states

    def sums(self, u: np.ndarray) -> np.ndarray:
        """What the mean pool sums, from zero states."""
        return self.run(u, zeros(len(u)))[-1]


def float_graph(p: Parameters) -> bytes:
    """The float32 export."""
    return step_model(p)


def dynamic_graph(p: Parameters) -> bytes:
    """Weights int8, activations quantized at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = _paths(p, folder)
        quantize_dynamic(source, target, op_types_to_quantize=PRODUCTS, weight_type=QuantType.QInt8)
        return target.read_bytes()


def static_graph(p: Parameters, u: np.ndarray) -> bytes:
    """QDQ, ranges from the steps of u (B, L) in float."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = _feeds(p, u)

        def get_next(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = _paths(p, folder)
        quantize_static(
            source, target, Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=PRODUCTS,
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return target.read_bytes()


def _feeds(p: Parameters, u: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """The inputs of every step."""
    session, states = StepGraph(float_graph(p), threads=1), zeros(len(u))
    for k in range(u.shape[1]):
        yield dict(zip(NAMES, states, strict=True)) | {"u": u[:, k : k + 1]}
        states = session.run(u[:, k : k + 1], states)


def _paths(p: Parameters, folder: str) -> tuple[Path, Path]:
    logging.getLogger().setLevel(logging.ERROR)  # advice about a preprocessing step, once a call
    source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
    source.write_bytes(float_graph(p))
    return source, target
