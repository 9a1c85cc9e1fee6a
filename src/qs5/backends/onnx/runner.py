"""Runs an exported model in onnxruntime: whole batches, or streams in chunks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qs5.backends.onnx.packages import require
from qs5.errors import UserError
from qs5.integer.model import IntegerModel

Codes = np.ndarray
State = dict[str, np.ndarray]
"""Carried tensors by name, such as "layers.0.ssm.state" (B, 2M) and "pool.total" (B, H)."""

IN, OUT = "in/", "out/"


class OnnxRunner:
    """An exported model, loaded. `source`: a file, or the bytes of one.

    One thread by default: the ops of a Scan are too small to share, and waiting threads only take time from others.
    """

    def __init__(self, source: Path | str | bytes, *, threads: int = 1) -> None:
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = runtime.InferenceSession(
                source if isinstance(source, bytes) else str(source),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # onnxruntime's errors have no common root of their own
            what = "the bytes given" if isinstance(source, bytes) else source
            raise UserError(
                f"{what}: expected an exported model, got {str(error)[:200]}; export it again"
            ) from error
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]

    @classmethod
    def of(cls, model: IntegerModel, *, threads: int = 1) -> "OnnxRunner":
        """A model that has not been written to a file."""
        from qs5.backends.onnx.graph import to_onnx

        return cls(to_onnx(model).SerializeToString(), threads=threads)

    @property
    def streams(self) -> bool:
        """Whether a sequence may come in chunks: not into a bidirectional model."""
        return self.metadata.get("qs5.streams") == "yes"

    def logits(self, raw: np.ndarray, lengths: np.ndarray | None = None) -> Codes:
        """Whole sequences raw (B, L, D): (B, classes), or (B, L, outputs) of a regression. int32.

        lengths (B,): the true lengths of padded sequences; only the pool reads them.
        """
        raw = self._raw(raw)
        lengths = self._lengths(lengths, raw, least=1)
        return self.run(raw, lengths, self.start(len(raw)))["logits"]

    def labels(self, raw: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Index of the largest logit (B,), the first of equals. Classification only."""
        if "label" not in self._outputs:
            raise UserError("expected a classification model, got a regression; use logits")
        raw = self._raw(raw)
        lengths = self._lengths(lengths, raw, least=1)
        return self.run(raw, lengths, self.start(len(raw)))["label"]

    def stream(self, *, batch: int = 1) -> "OnnxStream":
        """`batch` sequences that come in chunks, side by side."""
        if not self.streams:
            raise UserError(
                "expected a model that runs forwards, got a bidirectional one, which needs the whole sequence; "
                "use logits"
            )
        return OnnxStream(self, batch=batch)

    def start(self, batch: int) -> State:
        """What is carried before the first step: zeros."""
        carried = {name: value for name, value in self._inputs.items() if name.startswith(IN)}
        return {
            name.removeprefix(IN): np.zeros((batch, *value.shape[1:]), _dtype(value.type))
            for name, value in carried.items()
        }

    def run(
        self, raw: np.ndarray, lengths: np.ndarray, state: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """One call of the graph; every output by name."""
        feed = {"raw": raw, "lengths": lengths, **{f"{IN}{name}": array for name, array in state.items()}}
        outputs = self._session.run(None, {name: feed[name] for name in self._inputs})
        return dict(zip(self._outputs, outputs, strict=True))

    def _raw(self, raw: np.ndarray) -> np.ndarray:
        """Raw samples in the type that the graph reads. Codes and tokens saturate, as in the reference."""
        raw, value = np.asarray(raw), self._inputs["raw"]
        channels, dtype = value.shape[2], _dtype(value.type)
        if raw.ndim != 3 or raw.shape[2] != channels or 0 in raw.shape:
            raise UserError(f"expected samples of shape (B, L, {channels}) with B, L >= 1, got {raw.shape}")
        if raw.dtype.kind not in "iu":
            raise UserError(f"expected integers ({self.metadata.get('qs5.source')}), got {raw.dtype}")
        limits = np.iinfo(dtype)
        clipped = np.clip(raw.astype(np.int64), limits.min, limits.max).astype(dtype)
        if self.metadata.get("qs5.source") in ("uint8", "int16") and not np.array_equal(clipped, raw):
            raise UserError(f"expected {dtype.name} samples, got values of {raw.min()} to {raw.max()}")
        return clipped

    def _lengths(self, lengths: np.ndarray | None, raw: np.ndarray, *, least: int) -> np.ndarray:
        B, L = raw.shape[:2]
        n = np.full(B, L, np.int64) if lengths is None else np.asarray(lengths)
        if n.shape != (B,) or n.dtype.kind not in "iu" or n.min() < least or n.max() > L:
            raise UserError(f"expected {B} lengths of {least} to {L}, got {np.array2string(n, threshold=8)}")
        return n.astype(np.int64)


class OnnxStream:
    """Sequences that come in chunks: any split gives the codes of the whole."""

    def __init__(self, runner: OnnxRunner, *, batch: int) -> None:
        self._runner, self._batch = runner, batch
        self._state = runner.start(batch)

    def run(self, chunk: np.ndarray, lengths: np.ndarray | None = None) -> Codes:
        """Raw samples (B, l, D), l >= 1: logits of all steps so far (B, classes), or of this chunk (B, l, outputs).

        lengths (B,): how many of the l steps exist, 0 to l. After a sequence has ended give 0 for it.
        """
        raw = self._runner._raw(chunk)
        if len(raw) != self._batch:
            raise UserError(f"expected chunks of {self._batch} sequences, got {len(raw)}")
        outputs = self._runner.run(raw, self._runner._lengths(lengths, raw, least=0), self._state)
        self._state = {name: outputs[f"{OUT}{name}"] for name in self._state}
        return outputs["logits"]

    def step(self, u: np.ndarray) -> Codes:
        """One step (B, D) of every sequence: (B, classes), or (B, outputs)."""
        y = self.run(np.asarray(u)[:, None])
        return y[:, 0] if y.ndim == 3 else y

    @property
    def state(self) -> State:
        """A copy of what is carried, to be saved."""
        return {name: array.copy() for name, array in self._state.items()}

    @state.setter
    def state(self, state: Mapping[str, np.ndarray]) -> None:
        expected = {name: (array.shape, array.dtype) for name, array in self._state.items()}
        got = {name: (np.shape(array), np.asarray(array).dtype) for name, array in state.items()}
        if got != expected:
            raise UserError(f"expected a state of {expected}, got {got}; use one that this model gave")
        self._state = {name: np.array(array) for name, array in state.items()}

    def reset(self) -> None:
        """To before the first step."""
        self._state = self._runner.start(self._batch)


def _dtype(kind: str) -> np.dtype[Any]:
    """The NumPy type of onnxruntime's "tensor(int32)"."""
    return np.dtype(kind.removeprefix("tensor(").removesuffix(")"))
