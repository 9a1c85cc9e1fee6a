"""Interleaved timing: all variants take turns, so that a slow minute of the machine hits every one of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """The median over rounds of a ratio, with its quartiles."""

    median: float
    low: float
    high: float


class Timing(NamedTuple):
    """Median seconds, and the median over rounds of (this / reference) with its quartiles."""

    seconds: float
    ratio: float
    low: float
    high: float


def interleave(
    variants: Mapping[str, Callable[[], object]], *, reference: str, rounds: int
) -> dict[str, Timing]:
    """Time each variant once a round, `rounds` times after one warm-up; ratios are formed within a round."""
    times = take_turns(variants, rounds=rounds)
    return {
        name: Timing(statistics.median(seconds), *ratio(seconds, times[reference]))
        for name, seconds in times.items()
    }


def take_turns(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, warm_ups: int = 1
) -> dict[str, list[float]]:
    """Seconds of every variant, a number a round, after untimed rounds."""
    for _ in range(warm_ups):
        for call in variants.values():
            call()
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        # Alternate the order, so that nobody always runs in the same neighbour's shadow.
        for name in names if i % 2 == 0 else names[::-1]:
            begin = time.perf_counter()
            variants[name]()
            times[name].append(time.perf_counter() - begin)
    return times


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """over / under, formed within each of at least two rounds."""
    low, median, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return Spread(median, low, high)
