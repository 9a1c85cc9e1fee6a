"""Budgets as written on a command line: `bytes=40k`, `ops=2.5M`, `drop=0.5`."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from qs5.errors import UserError
from qs5.search.costs import CostKind

BudgetKind = Literal["bytes", "ops", "drop"]
UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
EXPECTED = (
    "--budget bytes=40k (of the integer model's file), ops=2.5M (bit operations a step), or drop=0.5 (points of "
    "accuracy below the float model, in the fewest bytes)"
)


@dataclass(frozen=True)
class Budget:
    """bytes: of the file of the integer model. ops: bit operations a step. drop: accuracy, in points."""

    kind: BudgetKind
    value: float

    @property
    def cost(self) -> CostKind:
        """What is spent: the least bytes where the budget is a drop."""
        return "ops" if self.kind == "ops" else "bytes"

    @property
    def name(self) -> str:
        """For files: bytes-40000."""
        return f"{self.kind}-{self.value:g}" if self.kind == "drop" else f"{self.kind}-{int(self.value)}"


def parse_budget(text: str) -> Budget:
    """The budget of a text. k, M, G: thousands, millions, milliards. Raises UserError."""
    kind, _, number = (part.strip() for part in text.partition("="))
    unit = number[-1:].lower() if number[-1:].isalpha() else ""
    try:
        value = float(number[: len(number) - len(unit)]) * UNITS[unit]
    except (ValueError, KeyError):
        value = math.nan
    if kind not in get_args(BudgetKind) or not 0 < value < 1e15:
        raise UserError(f"expected {EXPECTED}, got {text!r}")
    if kind == "drop" and (unit or value >= 100):
        raise UserError(
            f"expected a drop of less than 100 points of accuracy, such as drop=0.5, got {text!r}"
        )
    return Budget(kind, value)  # type: ignore[arg-type]
