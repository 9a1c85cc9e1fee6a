"""The zoo: every entry loads, says what it is, and is as good as its card says."""

import dataclasses
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

from qs5 import integer, tasks, zoo
from qs5.quantization.spec import spec_of
from qs5.tasks.metrics import accuracy
from qs5.tasks.task import Task
from qs5.training import methods, run

FIRST = 200
"""Test images of the quick check."""
QUICK_FLOOR = 0.98
GOAL = 99.45
"""Test accuracy in % of smnist-float on all 10,000 images that the project is after."""
PTQ_DROP = 0.003
"""Accuracy that W8A8Abar16, and W4A8 in polar form, may cost by PTQ alone."""
LOST = {"smnist-w8a8abar16": 0.3, "smnist-w4a8": 0.3, "smnist-w2a8": 1.0}
"""Points of accuracy that an integer entry may lose against smnist-float."""
SMALLER = {"smnist-w8a8abar16": 3.5, "smnist-w4a8": 6.0, "smnist-w2a8": 10.0}
"""How much smaller an integer file has to be than its parent's float32 parameters."""
PUBLISHED_PARAMETERS = 138_634


@pytest.fixture(scope="module")
def smnist() -> Task:
    """MNIST's test images, with nothing to download."""
    return tasks.load("smnist", parts="embedded")


@pytest.mark.parametrize("name", zoo.names())
def test_entry_is_a_run_with_a_card(name: str) -> None:
    folder = zoo.find(name)
    assert folder is not None
    info, stored = run.read_run(folder), run.read_model(folder)
    assert stored.model.config == info.recipe.model
    card = (folder / "CARD.md").read_text()
    for word in ("Data", "Recipe", "Seed", "Test accuracy", f"{stored.model.parameter_count:,}"):
        assert word in card


def test_smnist_float_is_the_papers_model() -> None:
    folder = zoo.find("smnist-float")
    assert folder is not None
    assert run.read_model(folder).model.parameter_count == PUBLISHED_PARAMETERS


@pytest.mark.parametrize("spec", ["float", pytest.param("W8A8Abar16,exact=true", marks=pytest.mark.slow)])
def test_smnist_float_on_the_first_images(spec: str, smnist: Task) -> None:
    assert _judge("smnist-float", spec, smnist, first=FIRST) >= QUICK_FLOOR


@pytest.mark.slow
def test_smnist_float_is_as_good_as_its_card_says_and_exact_ptq_costs_little(smnist: Task) -> None:
    full = _judge("smnist-float", "float", smnist)
    assert round(100 * full, 2) == _claim("smnist-float")
    assert _judge("smnist-float", "W8A8Abar16,exact=true", smnist) >= full - PTQ_DROP


def test_smnist_float_reaches_the_goal() -> None:
    assert _claim("smnist-float") >= GOAL


def _claim(name: str) -> float:
    """Test accuracy in % on an entry's card."""
    claimed = re.search(r"Test accuracy: \*\*([0-9.]+) %\*\*", (zoo.FOLDER / name / "CARD.md").read_text())
    assert claimed is not None
    return float(claimed.group(1))


def _judge(name: str, text: str, task: Task, *, first: int | None = None) -> float:
    folder = zoo.find(name)
    assert folder is not None
    info, model = run.read_run(folder), run.read_model(folder).model
    if first is not None:
        task = dataclasses.replace(task, test=task.test.take(np.arange(first)))
    if text == "float":
        return methods.judge(model, task, info=info).value
    with tempfile.TemporaryDirectory() as out:
        ptq = methods.ptq(model, task, spec_of(text), parent=info, name=name, out=Path(out))
    return methods.judge(ptq.model, task, info=ptq.info).value


# -- integer models ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.integer_names())
def test_integer_entry_is_what_its_card_says(name: str) -> None:
    model = integer.load(name)
    card = (zoo.FOLDER / name / "CARD.md").read_text()
    size = (zoo.FOLDER / name / "model.qs5").stat().st_size
    for word in ("Data", "Recipe", "Seed", "Test accuracy", integer.content_hash(model), f"{size:,} bytes"):
        assert word in card


@pytest.mark.parametrize("name", SMALLER)
def test_smnist_integers_are_smaller_and_right_on_the_first_images(name: str, smnist: Task) -> None:
    """On some hundreds where the native engine was built, else on a few by the reference."""
    model = integer.load(name)
    parent = run.read_model(zoo.FOLDER / "smnist-float").model
    size = (zoo.FOLDER / name / "model.qs5").stat().st_size
    assert 4 * parent.parameter_count / size >= SMALLER[name]
    count = FIRST if integer.available("native") else 20
    first = smnist.test.take(np.arange(count))
    wrong = count - round(count * accuracy(integer.engine(model).logits(first.x), first.y))
    assert wrong <= max(1, round((1 - QUICK_FLOOR) * count)), (
        "one image of a few may be among the hundredth that is lost"
    )


@pytest.mark.slow
@pytest.mark.skipif(not integer.available("native"), reason="the reference takes hours for it")
@pytest.mark.parametrize("name", SMALLER)
def test_smnist_integers_lose_little_on_all_images(name: str, smnist: Task) -> None:
    model = integer.load(name)
    parts = [
        integer.engine(model, "native").logits(smnist.test.x[i : i + 500]) for i in range(0, 10_000, 500)
    ]
    percent = 100 * accuracy(np.concatenate(parts), smnist.test.y)
    assert round(percent, 2) == _claim(name)
    assert percent >= _claim("smnist-float") - LOST[name]
