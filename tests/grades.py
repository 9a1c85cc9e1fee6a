"""How often a random test runs: a few seeds by `make test`, more by `make test-slow`, all by `make test-exhaustive`."""

from typing import Any

import pytest


def graded(values: list[Any], *, quick: int, slow: int) -> list[Any]:
    """Parameters: the first `quick` values unmarked, `slow` more marked slow, the rest exhaustive.

    A value that is a tuple stands for several parameters.
    """
    marks = [()] * quick + [pytest.mark.slow] * slow + [pytest.mark.exhaustive] * len(values)
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=mark)
        for value, mark in zip(values, marks, strict=False)
    ]
