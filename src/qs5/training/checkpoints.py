"""Resumable training state, one Orbax checkpoint an epoch.

Everything that the next epoch depends on is in it: parameters and running statistics, the optimiser's state
with its step count, and the best model so far. Random numbers are functions of (seed, step), so nothing else
is needed for a resumed run to be bit-for-bit the run that was not interrupted.
"""

from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from qs5.model.network import S5Model


class TrainState(NamedTuple):
    """What one epoch hands to the next."""

    model: S5Model
    best_model: S5Model
    opt_state: Any
    epoch: int
    """Epochs finished."""
    best_metric: float
    best_epoch: int
    """1-based epoch that gave `best_model`; 0 before the first."""


class _State(Protocol):
    """A tuple of arrays and numbers that knows how many epochs are in it."""

    @property
    def epoch(self) -> int: ...


State = TypeVar("State", bound=_State)


class Checkpoints:
    """The checkpoints of one run, in its folder `checkpoints/`; the last two are kept."""

    def __init__(self, run: Path) -> None:
        self._manager = ocp.CheckpointManager(
            (run / "checkpoints").resolve(),
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False),
        )

    def save(self, state: _State) -> None:
        """Write the state after `state.epoch` epochs; it becomes visible only when it is whole."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        self._manager.save(state.epoch, args=ocp.args.StandardSave({str(i): v for i, v in enumerate(leaves)}))
        self._manager.wait_until_finished()

    def restore(self, like: State) -> State | None:
        """The latest state, in the structure of `like`; None if there is none."""
        epoch = self._manager.latest_step()
        if epoch is None:
            return None
        leaves, tree = jax.tree.flatten(like)
        template = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
        stored = self._manager.restore(epoch, args=ocp.args.StandardRestore(template))
        restored = [_same_kind(stored[str(i)], leaf) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(tree, restored)

    def close(self) -> None:
        """Release the manager's threads."""
        self._manager.close()


def _same_kind(value: Any, like: Any) -> Any:
    """Arrays as JAX arrays, Python numbers as Python numbers (a metric must not be rounded to float32)."""
    return jax.numpy.asarray(value) if isinstance(like, jax.Array) else type(like)(value)
