"""The graph as an engine of `qs5.integer.engine`."""

import numpy as np

from qs5.backends.onnx.runner import OnnxRunner, OnnxStream
from qs5.integer.engine import State, check_raw, refuse_bidirectional
from qs5.integer.model import IntegerModel


class OnnxEngine:
    """A model in onnxruntime (`qs5.integer.engine.Engine`)."""

    def __init__(self, model: IntegerModel) -> None:
        self.model, self.runner = model, OnnxRunner.of(model)

    def logits(self, raw: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Codes of the last signal, int64."""
        check_raw(self.model, raw, lengths)
        return self.runner.logits(raw, lengths).astype(np.int64)

    def stream(self, batch: int = 1) -> "Stream":
        """A new stream. Raises IntegerModelError for a bidirectional model."""
        refuse_bidirectional(self.model)
        return Stream(self, batch)


class Stream:
    """B sequences in flight (`qs5.integer.engine.Stream`). The graph gives the answer with every chunk."""

    def __init__(self, engine: OnnxEngine, batch: int) -> None:
        self._engine, self._stream = engine, OnnxStream(engine.runner, batch=batch)
        self._logits: np.ndarray | None = None

    def run(self, raw: np.ndarray) -> np.ndarray | None:
        """Raw samples (B, L, D); a regression's outputs (B, L, d_out) in codes, else None."""
        out = self._stream.run(raw).astype(np.int64)
        if not self._engine.model.final_ops:
            return out
        self._logits = out
        return None

    def answer(self) -> np.ndarray:
        """Logits of the sequences so far. Raises ValueError before the first step, or right after `restore`."""
        if self._logits is None:
            raise ValueError("expected at least one step before the answer")
        return self._logits

    @property
    def state(self) -> State:
        """A copy of everything remembered."""
        # All sequences of a stream are equally long; elsewhere the number of steps is one number.
        found = {name: np.asarray(array) for name, array in self._stream.state.items()}
        return {name: array.max() if name == "pool.steps" else array for name, array in found.items()}

    def restore(self, state: State) -> None:
        """Go on from a saved state."""
        start = self._stream._runner.start(self._stream._batch)
        self._stream.state = {
            name: np.broadcast_to(np.asarray(state.get(name, zero)), zero.shape).astype(zero.dtype)
            for name, zero in start.items()
        }
        self._logits = None

    def reset(self) -> None:
        """Back to before the first step."""
        self._stream.reset()
        self._logits = None
