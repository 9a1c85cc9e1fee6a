"""Options are of the types that the loaders' signatures declare."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from qs5 import tasks
from qs5.tasks import DataError
from qs5.tasks.options import type_problems


def loader(
    *,
    path: str = "",
    count: int = 0,
    factor: float = 0.0,
    download: bool = True,
    label: str | None = None,
    names: Sequence[str] | None = None,
    form: Literal["long", "short"] = "long",
) -> None:
    """As loaders are."""


@pytest.mark.parametrize(
    "options",
    [
        {"path": "x"}, {"path": Path("x")}, {"count": 3}, {"count": np.int64(3)}, {"factor": 3}, {"factor": 0.5},
        {"download": False}, {"label": None}, {"label": "x"}, {"names": ("a", "b")}, {"names": ["a"]},
        {"names": "a"}, {"names": None}, {"form": "short"},
    ],
)  # fmt: skip
def test_values_of_the_declared_type_are_taken(options: dict):
    assert type_problems(loader, options) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"path": 2024}, "expected path to be text, got 2024 (as text: path='\"2024\"')"),
        ({"path": None}, "expected path to be text, got None"),
        ({"count": "²"}, "expected count to be a whole number, got '²'"),
        ({"count": 1.5}, "expected count to be a whole number, got 1.5"),
        ({"count": True}, "expected count to be a whole number, got True"),
        ({"factor": "much"}, "expected factor to be a number, got 'much'"),
        ({"download": "no"}, "expected download to be true or false, got 'no'"),
        ({"download": 0}, "expected download to be true or false, got 0"),
        ({"label": 3}, "expected label to be text, got 3 (as text: label='\"3\"')"),
        ({"names": (1, 2)}, "expected names to be several of: text, got (1, 2)"),
        ({"form": "wide"}, "expected form to be one of long, short, got 'wide'"),
    ],
)
def test_other_values_are_refused_in_a_sentence(options: dict, sentence: str):
    assert type_problems(loader, options) == [sentence]


@pytest.mark.parametrize("name", tasks.names())
def test_the_defaults_of_every_loader_are_of_their_types(name: str):
    parameters = inspect.signature(tasks.loader(name)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert type_problems(tasks.loader(name), defaults) == []


def test_a_task_is_not_loaded_with_a_value_of_another_type():
    with pytest.raises(
        DataError, match=r"^smnist: expected download to be true or false, got 'False'; correct"
    ):
        tasks.load("smnist", download="False")
