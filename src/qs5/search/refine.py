"""Refinement of a choice: the same knapsack again, with damages measured around the choice itself.

A round measures the divergence of the choice with each weight site one width wider and one narrower, all others as
they are, and takes the best combination of such steps within the budget. The damages add up for small steps only, so
the result is measured; where it is no better, the most promising single steps and pairs of steps are tried.
"""

from collections.abc import Callable

from qs5.search.costs import CostModel
from qs5.search.knapsack import Option, solve
from qs5.search.sensitivity import Divergence
from qs5.search.space import Choice, weight_sites, widths_of

ROUNDS = 4
PAIRS = 4


def refined(
    choice: Choice,
    budget: int,
    *,
    costs: CostModel,
    divergence: Divergence,
    rounds: int = ROUNDS,
    note: Callable[[str], None] = lambda _: None,
) -> list[Choice]:
    """The choices on the way, each better than the one before, `choice` first. budget: of `costs.estimate`."""
    path = [choice]
    for number in range(1, rounds + 1):
        better = _round(path[-1], budget, costs, divergence)
        if better is None:
            note(f"refinement {number}: no step is better")
            break
        before, after = divergence(path[-1]), divergence(better)
        note(f"refinement {number}: divergence {before:.5f} -> {after:.5f} on calibration data")
        path.append(better)
    return path


def _round(choice: Choice, budget: int, costs: CostModel, divergence: Divergence) -> Choice | None:
    """A better choice within the budget, or None."""
    base = divergence(choice)
    sites = _neighbours(choice, costs)
    options = {
        (site, b): Option(
            costs.site(choice, site, b), 0.0 if i == 0 else divergence(choice.with_weights({site: b})) - base
        )
        for site, widths in sites.items()
        for i, b in enumerate(widths)
    }
    items = [[options[site, b] for b in widths] for site, widths in sites.items()]
    picked = solve(items, budget - costs.fixed(choice))
    moves = [] if picked is None else [{s: sites[s][i] for s, i in zip(sites, picked, strict=True)}]
    moves += _pairs(sites, options, budget - costs.fixed(choice))
    for move in moves:
        new = choice.with_weights(move)
        if new != choice and divergence(new) < base:
            return new
    return None


def _neighbours(choice: Choice, costs: CostModel) -> dict[str, list[int]]:
    """The width of each site, then the next wider and narrower ones there are."""
    given = dict(choice.weights)
    found = {}
    for site in weight_sites(costs.workshop.config):
        widths = widths_of(site, choice.form)
        at = widths.index(given[site.name])
        found[site.name] = [given[site.name], *widths[max(0, at - 1) : at], *widths[at + 1 : at + 2]]
    return found


def _pairs(
    sites: dict[str, list[int]], options: dict[tuple[str, int], Option], room: int
) -> list[dict[str, int]]:
    """The most promising steps, alone or two at once, that fit the room and promise something."""
    now = sum(options[site, widths[0]].cost for site, widths in sites.items())
    steps = [(site, b) for site, widths in sites.items() for b in widths[1:]]
    moves = [{s: b} for s, b in steps] + [{s: b, t: c} for s, b in steps for t, c in steps if s < t]
    rated = []
    for move in moves:
        damage = sum(options[s, b].damage for s, b in move.items())
        cost = sum(options[s, b].cost - options[s, sites[s][0]].cost for s, b in move.items())
        if damage < 0 and now + cost <= room:
            rated.append((damage, sorted(move.items())))
    return [dict(move) for _, move in sorted(rated)[:PAIRS]]
