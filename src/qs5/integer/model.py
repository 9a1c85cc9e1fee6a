"""`IntegerModel`: the frozen artefact. Integer ops and constants, and nothing that computes with real numbers.

The answer of a model is defined by SPEC.md; every backend gives it to the bit.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from qs5.integer.ops import POOLS, Embedding, Op, Recurrence
from qs5.integer.signals import Signal

if TYPE_CHECKING:
    from qs5.integer.session import Session

SPEC_VERSION = 1

Source = Literal["uint8", "int16", "codes", "token"]
Task = Literal["classification", "regression"]
Padding = Literal["fed", "masked"]

RAW_RANGES = {"uint8": (0, 255), "int16": (-(2**15), 2**15 - 1)}
"""Smallest and largest raw sample of the sources that are types of whole numbers."""


@dataclass(frozen=True, kw_only=True)
class InputQuantizer:
    """From a raw sample to the codes of the first signal, per channel. SPEC 4.1.

    uint8, int16: code = clip(floor((raw M + offset + 2^(shift-1)) / 2^shift)), in 64 bits.
    codes: the raw sample is the code; out-of-range codes saturate.  token: the raw sample is a token's number.
    """

    source: Source
    out: Signal
    M: tuple[int, ...] = ()
    offset: tuple[int, ...] = ()
    shift: int = 1

    @property
    def accepted(self) -> tuple[int, int]:
        """Smallest and largest raw sample that is no error. Codes and token numbers that are too large saturate."""
        return RAW_RANGES.get(self.source, (-(2**31), 2**31 - 1))


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a model is about: for people and for the host around it. No op reads it.

    classes: names by label, of a classification.  units: of regression outputs.  channels: names of input channels.
        One for each, or None.
    scale, offset: how the host makes codes of real measurements when the source is "codes":
        code = clip(floor((value scale + offset) + 1/2)), per channel. Both empty: it is given codes.
    widths: every width of the spec, spelled out.  provenance: run, method, commit, data, accuracy of the parent.
    """

    task: str = ""
    spec: str = ""
    widths: str = ""
    classes: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    channels: tuple[str, ...] | None = None
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerModel:
    """The ops in order of execution. Ops up to the pool run once a step, the ones after it once a sequence.

    task "classification": the answer is the index of the largest code of the last signal, the first one of equals.
    task "regression": the codes of the last signal, every step.
    max_length: the longest sequence for which sums are proved not to overflow.
    padding: of a padded sequence, where recurrences from the right begin: "fed" at the end of the padding, "masked" at
        the true end. Means nothing to a sequence without padding, or to a model that runs forwards alone.
    """

    task: Task
    input: InputQuantizer
    ops: tuple[Op, ...]
    max_length: int
    padding: Padding = "fed"
    description: Description = Description()

    @property
    def output(self) -> Signal:
        """The logits, or the regression outputs."""
        return self.ops[-1].out

    @property
    def signals(self) -> dict[str, Signal]:
        """Every signal by name, in order."""
        return {s.name: s for s in (self.input.out, *(op.out for op in self.ops))}

    @property
    def raw_range(self) -> tuple[int, int]:
        """Smallest and largest raw sample that means something of its own: what the source can hold, the codes of the
        first signal, or the tokens that the embedding has an entry for."""
        q = self.input
        if q.source == "token":
            sizes = [op.tokens for op in self.ops if isinstance(op, Embedding) and op.x == q.out.name]
            return 0, min([*sizes, q.out.high + 1]) - 1
        return RAW_RANGES.get(q.source, (q.out.low, q.out.high))

    @property
    def pool_index(self) -> int:
        """Position of the pool; the number of ops where there is none."""
        return next((i for i, op in enumerate(self.ops) if isinstance(op, POOLS)), len(self.ops))

    @property
    def step_ops(self) -> tuple[Op, ...]:
        """The ops of one step, without the pool."""
        return self.ops[: self.pool_index]

    @property
    def final_ops(self) -> tuple[Op, ...]:
        """The pool and what follows it."""
        return self.ops[self.pool_index :]

    def stream(self, backend: str = "auto") -> "Session":
        """A new session: one sequence, step by step. Raises IntegerModelError for a bidirectional model."""
        from qs5.integer.session import Session

        return Session(self, backend)

    @property
    def bidirectional(self) -> bool:
        """Whether some recurrence runs from the end: such a model needs the whole sequence."""
        return any(isinstance(op, Recurrence) and op.reverse for op in self.ops)
