"""The knapsack against every combination there is."""

import itertools

import numpy as np
import pytest

from qs5.search.knapsack import Option, solve


def _items(seed: int, *, step: int = 1) -> list[list[Option]]:
    rng = np.random.default_rng(seed)
    return [
        [
            Option(step * int(c), float(d))
            for c, d in zip(rng.integers(0, 40, n), rng.normal(size=n), strict=True)
        ]
        for n in rng.integers(1, 5, 5)
    ]


def _brute(items: list[list[Option]], budget: int) -> float | None:
    """The least damage of all combinations within the budget."""
    within = [
        sum(o.damage for o in row) for row in itertools.product(*items) if sum(o.cost for o in row) <= budget
    ]
    return min(within, default=None)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("step", [1, 12])
def test_it_finds_the_least_damage_of_all_combinations(seed: int, step: int) -> None:
    items = _items(seed, step=step)
    for budget in range(0, 200 * step, 7 * step + 3):
        picked, best = solve(items, budget), _brute(items, budget)
        if best is None:
            assert picked is None
            continue
        assert picked is not None
        chosen = [item[i] for item, i in zip(items, picked, strict=True)]
        assert sum(o.cost for o in chosen) <= budget
        assert sum(o.damage for o in chosen) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_with_few_cells_the_budget_still_holds(seed: int) -> None:
    items = _items(seed)
    for budget in range(20, 160, 11):
        picked, best = solve(items, budget, cells=10), _brute(items, budget)
        if picked is not None:
            chosen = [item[i] for item, i in zip(items, picked, strict=True)]
            assert sum(o.cost for o in chosen) <= budget
            assert best is not None and sum(o.damage for o in chosen) >= best - 1e-12
        else:
            assert best is None
