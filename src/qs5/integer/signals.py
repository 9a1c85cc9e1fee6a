"""The tensors that flow between the ops of an integer model."""

from dataclasses import dataclass

import numpy as np

MAX_SIGNAL_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A tensor of integer codes: `channels` codes a step, or a sequence once it is pooled.

    Invariants: codes lie in low..high of the format; signed formats are symmetric, low = -high. The real number
    that a code stands for is code 2^exponent. That is a note for people: no op reads it. None means that the
    exponent differs between channels (`Recurrence.exponents` has them).
    """

    name: str
    channels: int
    bits: int
    signed: bool = True
    exponent: int | None = None

    @property
    def high(self) -> int:
        """Largest code (1 bit signed: 1)."""
        return max(2 ** (self.bits - 1) - 1, 1) if self.signed else 2**self.bits - 1

    @property
    def low(self) -> int:
        """Smallest code."""
        return -self.high if self.signed else 0

    @property
    def dtype(self) -> np.dtype:
        """The narrowest of int8, uint8, int16, uint16 that holds every code."""
        width = 8 if self.bits <= 8 else 16
        return np.dtype(f"{'' if self.signed else 'u'}int{width}")
