"""Engines: what runs an integer model. All of them give the same codes.

A backend is a module `qs5.backends.<name>` with a function `engine(model) -> Engine`. It is looked up by name when it
is asked for, so this package depends on none of them.
"""

import importlib
from typing import Literal, Protocol, get_args

import numpy as np

from qs5.integer.errors import IntegerModelError
from qs5.integer.model import IntegerModel
from qs5.integer.ops import Recurrence
from qs5.integer.signals import Signal

Backend = Literal["native", "reference", "c99", "onnx"]
State = dict[str, np.ndarray]
"""What a stream has to remember, by name: a recurrence's signal (B, 2M) int32; and for the pool "pool.total" (B, H)
int64, "pool.last" (B, H) int32 and "pool.steps" () int64."""

POOL_STATE = ("pool.total", "pool.last", "pool.steps")


class Stream(Protocol):
    """B sequences in flight, fed in chunks; any split into chunks gives the same codes.

    For `Session`, which checks the samples, the number of steps and restored states before they come here.
    """

    def run(self, raw: np.ndarray) -> np.ndarray | None:
        """Takes raw samples (B, L, D); gives a regression's outputs (B, L, d_out) in codes, else None."""
        ...

    def answer(self) -> np.ndarray:
        """Logits of the sequences so far, codes (B, classes) int64. Raises ValueError before the first step."""
        ...

    @property
    def state(self) -> State:
        """A copy of everything remembered."""
        ...

    def restore(self, state: State) -> None:
        """Go on from a state that was saved before."""
        ...

    def reset(self) -> None:
        """Back to before the first step."""
        ...


class Engine(Protocol):
    """A model made ready to run."""

    def logits(self, raw: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Codes of the last signal for raw (B, L, D): (B, classes) int64, or (B, L, d_out) of a regression."""
        ...

    def stream(self, batch: int = 1) -> Stream:
        """A new stream. Raises IntegerModelError for a bidirectional model: it needs the end of the sequence."""
        ...


def engine(model: IntegerModel, backend: Backend | Literal["auto"] = "auto") -> Engine:
    """The engine of a backend; "auto": native where it was built, else the reference.

    Raises UserError for an unknown backend, or one that cannot run here, with what it lacks.
    """
    backend = chosen(backend)
    if backend not in get_args(Backend):
        raise IntegerModelError(
            f"expected a backend of {', '.join(get_args(Backend))} or auto, got {backend!r}"
        )
    try:
        module = importlib.import_module(f"qs5.backends.{backend}")
    except ImportError as error:
        raise IntegerModelError(
            f"expected a backend that runs here, got {backend} ({error}); take backend='auto'"
        ) from error
    return module.engine(model)


def chosen(backend: Backend | Literal["auto"]) -> Backend:
    """The backend that a name stands for; "auto": native where it was built, else the reference."""
    if backend != "auto":
        return backend
    return "native" if available("native") else "reference"


def available(backend: Backend) -> bool:
    """Whether a backend can run here."""
    try:
        module = importlib.import_module(f"qs5.backends.{backend}")
    except ImportError:
        return False
    return module.available() if hasattr(module, "available") else True


def refuse_bidirectional(model: IntegerModel) -> None:
    """Raises IntegerModelError when a model cannot be streamed."""
    if model.bidirectional:
        raise IntegerModelError(
            "expected a model that runs forward in time, got a bidirectional one, which needs the end of a sequence "
            "before its first answer; give it whole sequences"
        )


def check_raw(model: IntegerModel, raw: np.ndarray, lengths: np.ndarray | None = None) -> None:
    """Raises IntegerModelError unless raw is (B, L, D) of whole numbers that the model's input takes."""
    channels = 1 if model.input.source == "token" else model.input.out.channels
    if raw.ndim != 3 or raw.shape[2] != channels or not np.issubdtype(raw.dtype, np.integer):
        raise IntegerModelError(
            f"expected raw samples (B, L, {channels}) of whole numbers ({model.input.source}), got {raw.shape} "
            f"{raw.dtype}; see the model's description for how to make them"
        )
    if not 1 <= raw.shape[1] <= model.max_length:
        raise IntegerModelError(
            f"expected 1 to {model.max_length} steps, got {raw.shape[1]}; lower the model with a larger --max-length"
        )
    if lengths is not None and (
        lengths.shape != raw.shape[:1] or np.any(lengths < 1) or np.any(lengths > raw.shape[1])
    ):
        raise IntegerModelError(
            f"expected {raw.shape[0]} lengths of 1 to {raw.shape[1]}, got {lengths.tolist()[:8]}"
        )
    low, high = model.input.accepted
    if raw.size and (raw.min() < low or raw.max() > high):
        raise IntegerModelError(
            f"expected raw samples of {low} to {high} ({model.input.source}), got {raw.min()} to {raw.max()}"
        )


def check_steps(model: IntegerModel, *, before: int, more: int) -> None:
    """Raises IntegerModelError where a sequence that is pooled would get more than `max_length` steps. SPEC 1."""
    if model.final_ops and before + more > model.max_length:
        raise IntegerModelError(
            f"expected at most {model.max_length} steps in a sequence, got {before} and {more} more; reset, or lower "
            "the model with a larger --max-length"
        )


def check_state(model: IntegerModel, state: State) -> None:
    """Raises IntegerModelError unless `state` is one that a session of this model may have saved."""
    codes = {op.out.name: op.out for op in model.step_ops if isinstance(op, Recurrence)}
    if "steps" not in state or set(state) - {*codes, *POOL_STATE, "steps"}:
        raise IntegerModelError(
            f"expected the state of a session of this model ({', '.join(codes) or 'no recurrences'}), got "
            f"{', '.join(sorted(state))[:200] or 'nothing'}; save it with session.state"
        )
    for name in set(state) & set(codes):
        _check_codes(name, state[name], codes[name], times=1)
    steps, pooled = (_count(state, name) for name in ("steps", "pool.steps"))
    check_steps(model, before=0, more=steps)
    if pooled > steps:
        raise IntegerModelError(
            f"expected at most {steps} pool.steps, got {pooled}; save the state with session.state"
        )
    if model.final_ops:
        pool = model.final_ops[0].out
        _check_codes("pool.last", state.get("pool.last"), pool, times=1)
        _check_codes("pool.total", state.get("pool.total"), pool, times=steps)


def _count(state: State, name: str) -> int:
    """A number of steps in a state, 0 where there is none."""
    value = np.asarray(state.get(name, 0))
    if value.shape != () or value.dtype.kind not in "iu" or value < 0:
        raise IntegerModelError(
            f"expected {name} to be a whole number of 0 or more, got {value.tolist()}; save the state with "
            "session.state"
        )
    return int(value)


def _check_codes(name: str, codes: np.ndarray | None, signal: Signal, *, times: int) -> None:
    """Codes (1, channels) of a signal, or sums of so many of them."""
    low, high, shape = times * signal.low, times * signal.high, (1, signal.channels)
    if codes is not None and (codes.shape != shape or np.any(codes < low) or np.any(codes > high)):
        raise IntegerModelError(
            f"expected the state {name} of shape {shape} within {low} to {high}, got {codes.shape}; save it with "
            "session.state"
        )
