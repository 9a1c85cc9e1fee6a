"""`Session`: one sequence, step by step, on any engine."""

import numpy as np

from qs5.integer.engine import (
    Backend,
    State,
    check_raw,
    check_state,
    check_steps,
    engine,
    refuse_bidirectional,
)
from qs5.integer.errors import IntegerModelError
from qs5.integer.model import IntegerModel


class Session:
    """Streaming inference of one sequence. Any split into steps and chunks gives the same bits.

    Refused samples, steps beyond the model's max_length, and states of other models raise IntegerModelError and change
    nothing. A regression may go on for ever.
    """

    def __init__(self, model: IntegerModel, backend: Backend | str = "auto") -> None:
        refuse_bidirectional(model)
        self.model = model
        self._stream = engine(model, backend).stream()  # type: ignore[arg-type]
        self.steps = 0

    def step(self, u: np.ndarray | int) -> np.ndarray | None:
        """One step of raw samples (D,), or one number; a regression's outputs (d_out,) in codes, else None."""
        out = self.run(np.atleast_1d(np.asarray(u))[None, :])
        return None if out is None else out[0]

    def run(self, chunk: np.ndarray) -> np.ndarray | None:
        """Several steps (L, D); a regression's outputs (L, d_out) in codes, else None."""
        chunk = np.asarray(chunk)[None]
        check_raw(self.model, chunk)
        check_steps(self.model, before=self.steps, more=chunk.shape[1])
        out = self._stream.run(chunk)
        self.steps += chunk.shape[1]
        return None if out is None else out[0]

    @property
    def logits(self) -> np.ndarray:
        """The answer for the steps so far, in codes (classes,). Raises ValueError before the first step.

        Raises IntegerModelError for a regression, which answers every step.
        """
        if not self.model.final_ops:
            raise IntegerModelError(
                "expected a classification, got a regression, which has no one answer; use what step and run give"
            )
        return self._stream.answer()[0]

    @property
    def prediction(self) -> int:
        """The class for the steps so far."""
        return int(np.argmax(self.logits))

    @property
    def state(self) -> State:
        """A copy of everything that has to be remembered; assign it to go on from there.

        | name                  | what                                             | shape   | type  |
        |-----------------------|--------------------------------------------------|---------|-------|
        | a recurrence's signal | its state: re of M modes, then im                | (1, 2M) | int32 |
        | "pool.total"          | sum of the codes that the pool reads, H channels | (1, H)  | int64 |
        | "pool.last"           | those codes at the last step                     | (1, H)  | int32 |
        | "pool.steps"          | steps that the pool has seen                     | ()      | int64 |
        | "steps"               | steps of the sequence so far                     | ()      | int64 |

        A regression has no pool. What has no value before the first step, or what the model's pool does not need, an
        engine may leave out or give as zeros. Assigning raises IntegerModelError for what no session of this model
        has saved.
        """
        return self._stream.state | {"steps": np.asarray(self.steps)}

    @state.setter
    def state(self, saved: State) -> None:
        check_state(self.model, saved)
        self._stream.restore({k: v for k, v in saved.items() if k != "steps"})
        self.steps = int(saved["steps"])

    def reset(self) -> None:
        """Back to before the first step."""
        self._stream.reset()
        self.steps = 0
