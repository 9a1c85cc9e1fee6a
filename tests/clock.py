"""A clock that stands still but for the calls that say how long they take."""

import time
from collections.abc import Callable, Iterable

import pytest


class Clock:
    """In the place of `time.perf_counter`: tests of timings are exact, and take no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self._now)

    def taking(self, seconds: Iterable[float]) -> Callable[[], None]:
        """A call that takes these seconds, one after the other. Powers of two add up without rounding."""
        durations = iter(seconds)

        def call() -> None:
            self._now += next(durations)

        return call
