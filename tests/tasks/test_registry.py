import subprocess
import sys

import pytest

from qs5 import tasks
from qs5.tasks import DataError

NAMES = (
    "digits",
    "smnist",
    "listops",
    "text",
    "retrieval",
    "scifar",
    "pathfinder",
    "pathx",
    "mackey_glass",
    "fsdd",
    "custom",
)
WITHOUT_JAX = """
import sys
sys.modules["jax"] = None
import qs5.tasks.batches, qs5.tasks.metrics
from qs5 import tasks
print(tasks.load("smnist", parts="embedded").length)
"""


def test_names():
    assert tasks.names() == NAMES


def test_an_unknown_task_is_refused():
    with pytest.raises(DataError, match=r"expected a task among digits, smnist, .*, got 'mnist'"):
        tasks.load("mnist")


def test_an_unknown_option_is_refused():
    with pytest.raises(DataError, match="smnist: expected options among base_url, download, parts, got part"):
        tasks.load("smnist", part="embedded")
    with pytest.raises(DataError, match="digits: expected options among none, got seed"):
        tasks.load("digits", seed=1)


def test_a_missing_option_is_reported():
    with pytest.raises(DataError, match="custom: expected the option path, got none"):
        tasks.load("custom")


def test_tasks_load_where_jax_cannot_be_imported():
    done = subprocess.run([sys.executable, "-c", WITHOUT_JAX], capture_output=True, text=True, check=False)
    assert done.stdout == "784\n", done.stderr


def test_errors_are_one_line():
    assert str(DataError("a\n   b")) == "a b"
    assert issubclass(DataError, ValueError)
