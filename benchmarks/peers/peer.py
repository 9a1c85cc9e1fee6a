"""A peer: something that computes what qs5 computes. It is checked for that before it is timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from benchmarks.interleaved import Timing, interleave

TOLERANCE = 2e-3
"""Relative L2 distance of float32 outputs and gradients that were summed in another order."""


class Missing(Exception):
    """A peer that cannot run here; the message goes into its row."""


class Ready(NamedTuple):
    """A call to time, and what it computes, by name, to be compared with the reference's arrays of these names.

    note: what its row says about agreement where distance is not the measure (quantized peers).
    tokens: of a call, where they are not the group's.
    """

    call: Callable[[], object]
    outputs: Mapping[str, np.ndarray]
    note: str = ""
    tolerance: float = TOLERANCE
    tokens: int | None = None


@dataclass(frozen=True)
class Group:
    """Variants that take turns, each made when its turn comes to be checked. The first is the reference.

    compare: variants that are compared with another one than the reference: name -> that one's.
    """

    key: str
    title: str
    about: str
    tokens: int
    variants: Mapping[str, Callable[[], Ready]]
    compare: Mapping[str, str] = field(default_factory=dict)


class Row(NamedTuple):
    """A timed variant with its distance to what it was compared with, or the reason why there is none."""

    name: str
    timing: Timing | None
    distance: float | None
    note: str
    tokens: int


def measure(group: Group, *, rounds: int) -> list[Row]:
    """Make, check and time all variants of a group. What is missing or wrong is a row, never an error."""
    ready: dict[str, Ready] = {}
    rows: dict[str, Row] = {}
    for name, make in group.variants.items():
        try:
            ready[name] = made = make()
            against = ready[group.compare.get(name, next(iter(group.variants)))]
            rows[name] = Row(name, None, checked(made, against), made.note, made.tokens or group.tokens)
        except Exception as error:  # a peer of another project may fail in any way
            if not ready:
                raise
            ready.pop(name, None)
            rows[name] = Row(name, None, None, f"not measured: {_reason(error)}", 0)
    calls = {name: made.call for name, made in ready.items()}
    timings = interleave(calls, reference=next(iter(calls)), rounds=rounds)
    return [row._replace(timing=timings.get(name)) for name, row in rows.items()]


def _reason(error: Exception) -> str:
    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
    return first if isinstance(error, Missing) else f"{type(error).__name__}: {first}"


def checked(made: Ready, against: Ready) -> float | None:
    """The largest relative distance over the outputs. Raises Missing where it is not small: that is no peer."""
    distances = {name: distance(a, against.outputs[name]) for name, a in made.outputs.items()}
    for name, found in distances.items():
        if not found <= made.tolerance:
            raise Missing(f"computes something else: {name} is off by {found:.2g} (relative L2)")
    return max(distances.values(), default=None)


def distance(a: Any, b: Any) -> float:
    """Relative L2 distance |a - b| / |b|."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise Missing(f"expected an output of shape {b.shape}, got {a.shape}")
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def needs(*packages: str) -> None:
    """Raises Missing unless all can be imported."""
    import importlib.util

    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise Missing(f"{' and '.join(absent)} not installed: make bench-env, or pip install 'qs5[bench]'")


def same_classes(logits: np.ndarray, reference: np.ndarray) -> str:
    """How many sequences fall to the class of the float model."""
    same = int(np.sum(np.argmax(logits, -1) == np.argmax(reference, -1)))
    return f"{same} of {len(reference)} classes as in float"
