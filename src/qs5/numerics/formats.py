"""Number formats: how many bits, what range, which grid. NumPy only.

A format turns a real number x into an integer q and back:

    q = clip(round(x / step), -q_max, q_max),   x ~ step q

| range rule | step from max|x|                 | source                                               |
|------------|----------------------------------|------------------------------------------------------|
| paper      | max|x| / (2^(n-1) - 1)           | Q-S5 equation 3                                      |
| aqt        | max|x| / (2^(n-1) - 1/2)         | what AQT does by default, hence the paper's real runs |

With one bit there is no zero under either rule: q is -1/2 or +1/2 and step is max|x| (AQT's two levels;
equation 3 would divide by zero).
"""

from dataclasses import dataclass
from typing import Literal

RangeRule = Literal["paper", "aqt"]

MAX_BITS = 16


@dataclass(frozen=True)
class QFormat:
    """A finite set of integers: `bits` wide, symmetric around zero if signed, from 0 if not.

    Invariants: low <= q <= high; signed: low = -high = -(2^(bits-1) - 1); unsigned: 0 .. 2^bits - 1.
    """

    bits: int
    signed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MAX_BITS:
            raise ValueError(f"expected 1 to {MAX_BITS} bits, got {self.bits}")

    @property
    def high(self) -> int:
        """Largest integer of the format (1 bit signed: 1, of the doubled grid -1, +1)."""
        if not self.signed:
            return 2**self.bits - 1
        return max(2 ** (self.bits - 1) - 1, 1)

    @property
    def low(self) -> int:
        """Smallest integer of the format."""
        return -self.high if self.signed else 0


def edge(bits: int, rule: RangeRule) -> float:
    """The real number, in steps, that max|x| is mapped to. One bit: 1, whatever the rule."""
    if bits == 1:
        return 1.0
    return 2 ** (bits - 1) - (1.0 if rule == "paper" else 0.5)
