"""The multiple-choice knapsack: one option of every item, the least total damage within a budget.

    minimise sum_i damage_i(o_i)   subject to   sum_i cost_i(o_i) <= budget

Solved by dynamic programming over the cost that is left; exact where the costs, divided by their common divisor, span
at most `CELLS`, else with costs rounded up, so that the budget holds in any case. Source: Kellerer, Pferschy,
Pisinger, "Knapsack Problems", 2004, chapter 11.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CELLS = 20_000


class Option(NamedTuple):
    """One option of an item."""

    cost: int
    damage: float


def solve(items: Sequence[Sequence[Option]], budget: int, *, cells: int = CELLS) -> tuple[int, ...] | None:
    """The index of the chosen option of every item; None where even the cheapest ones cost more than `budget`."""
    cheapest = [min(option.cost for option in item) for item in items]
    room = budget - sum(cheapest)
    if room < 0:
        return None
    extra = [[option.cost - low for option in item] for item, low in zip(items, cheapest, strict=True)]
    unit = math.gcd(*(c for row in extra for c in row)) or 1
    unit *= max(1, -(-min(room, sum(map(max, extra))) // (unit * cells)))
    size = min(room, sum(map(max, extra))) // unit + 1
    best, chosen = np.zeros(size), []
    for item, row in zip(items, extra, strict=True):
        best, choice = _with_item(best, [(-(-c // unit), o.damage) for c, o in zip(row, item, strict=True)])
        chosen.append(choice)
    return _trace(chosen, [[-(-c // unit) for c in row] for row in extra])


def _with_item(best: np.ndarray, options: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Least damage by room with one item more, and its option. best[r]: least damage within room r so far."""
    totals = np.full((len(options), len(best)), np.inf)
    for row, (cost, damage) in zip(totals, options, strict=True):
        if cost < len(best):
            row[cost:] = best[: len(best) - cost] + damage
    return totals.min(axis=0), totals.argmin(axis=0)


def _trace(chosen: Sequence[np.ndarray], costs: Sequence[Sequence[int]]) -> tuple[int, ...]:
    room, found = len(chosen[0]) - 1 if chosen else 0, []
    for choice, row in zip(reversed(chosen), reversed(costs), strict=True):
        found.append(int(choice[room]))
        room -= row[found[-1]]
    return tuple(reversed(found))
