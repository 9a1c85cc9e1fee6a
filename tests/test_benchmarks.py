"""The timing harness: ratios are formed within a round, against the named reference."""

import time

from benchmarks.interleaved import interleave

SLACK = 0.25
"""Relative: sleeping is inexact on a busy machine."""


def test_ratios_and_medians() -> None:
    calls: list[str] = []

    def sleeper(name: str, seconds: float):
        def call() -> None:
            calls.append(name)
            time.sleep(seconds)

        return call

    timings = interleave(
        {"one": sleeper("one", 0.02), "two": sleeper("two", 0.04)}, reference="one", rounds=5
    )
    assert timings["one"].ratio == 1.0
    assert abs(timings["two"].ratio - 2.0) < 2.0 * SLACK
    assert abs(timings["two"].seconds - 0.04) < 0.04 * SLACK
    # One warm-up each, then the order alternates.
    assert calls[:6] == ["one", "two", "one", "two", "two", "one"]
