"""How many bits the weights of a network are stored with: one definition, for pages, charts and tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FLOAT_BITS = 32


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A weight site. numbers: how many it has, a complex one counts two. bits: of each of them; None: float."""

    site: str
    component: str
    numbers: int
    bits: int | None

    @property
    def width(self) -> int:
        """Bits of a number as it is stored."""
        return FLOAT_BITS if self.bits is None else self.bits


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What the weights of a run are stored with, site by site, and every width of its spec as one text."""

    weights: tuple[Weight, ...]
    widths: str

    @property
    def components(self) -> dict[str, tuple[Weight, ...]]:
        """The sites of each component, in the order of the forward pass."""
        names = dict.fromkeys(w.component for w in self.weights)
        return {name: tuple(w for w in self.weights if w.component == name) for name in names}


def numbers(weights: Iterable[Weight]) -> int:
    """How many numbers there are."""
    return sum(w.numbers for w in weights)


def stored_bytes(weights: Iterable[Weight]) -> float:
    """Bytes of all codes, packed; scales are not counted."""
    return sum(w.width * w.numbers for w in weights) / 8


def mean_bits(weights: Sequence[Weight]) -> float:
    """Stored bits a weight, the mean over all numbers."""
    return 8 * stored_bytes(weights) / numbers(weights)
