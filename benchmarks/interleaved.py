"""Interleaved timing: all variants take turns, so that a slow minute of the machine hits every one of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


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
    return {name: _timing(seconds, times[reference]) for name, seconds in times.items()}


def _timing(seconds: list[float], reference: list[float]) -> Timing:
    ratios = [s / r for s, r in zip(seconds, reference, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return Timing(statistics.median(seconds), median, low, high)
