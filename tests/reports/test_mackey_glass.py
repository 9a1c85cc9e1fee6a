"""The page of the Mackey-Glass study, from made-up records."""

from typing import Any

import pytest
from tests.reports.test_results import line

from qs5.reports.mackey_glass import Schedule, points_of, render, schedule_of
from qs5.reports.results import Result, result_of

PAPER = {"tau": [1, 9], "curves": {"float": [20, 50]}}


def run(value: float, *, task: str = "mackey_glass", seed: int = 0, **extra: Any) -> Result:
    fixed = {
        "panel": "float",
        "bits": None,
        "tau": 1,
        "recipe": "small",
        "epochs": 4,
        "smape_running": value + 1.0,
    }
    return result_of(line(task=task, metric="smape", value=value, seed=seed, extra=fixed | extra), {})


def rows_of(text: str, heading: str) -> dict[str, list[str]]:
    """The table below a heading, by its first column."""
    part = text.split(f"\n## {heading}")[1].split("\n## ")[0]
    lines = [row.strip("| ").split(" | ") for row in part.splitlines() if row.startswith("| ")]
    return {row[0]: [cell.strip() for cell in row[1:]] for row in lines}


def test_a_cell_is_mean_and_spread_beside_the_papers():
    runs = [
        run(18.0), run(20.0, seed=1), run(40.0, tau=9),
        run(30.0, panel="b", bits=4), run(float("nan"), panel="b", bits=4, seed=1),
        run(float("nan"), panel="a", bits=1),
    ]  # fmt: skip
    page = render(runs, PAPER)
    table = rows_of(page, "Figure 2")
    assert table["float"] == ["1-2", "19.0 (18.0-20.0)", "40.0"]
    assert table["float, paper"] == ["", "20.0", "50.0"]
    assert table["b 4"] == ["0-2", "30.0, 1 diverged", "not run"]
    assert table["a 1"] == ["0-1", "diverged", "not run"]
    assert table["d 8"] == ["0", "not run", "not run"]
    assert rows_of(page, "The same runs")["float"] == ["1-2", "20.0 (19.0-21.0)", "41.0"]
    assert "inside at tau 1; above at tau 9" in page
    assert "Not run: `python -m benchmarks.mackey_glass run --form ahead`" in page


def test_a_seed_that_was_run_twice_counts_once():
    (point,) = points_of([run(18.0), run(10.0)])
    assert point.values == (10.0,)


def test_the_study_has_one_schedule_and_others_are_compared_with_it():
    runs = [run(18.0), run(20.0, tau=9), run(17.0, epochs=16), run(19.5, tau=9, epochs=16)]
    runs.append(run(5.0, tau=17, recipe="large", epochs=9))
    assert schedule_of(runs) == Schedule("small", 4)
    assert [p.values for p in points_of(runs)] == [(18.0,), (20.0,)]
    assert [p.values for p in points_of(runs, schedule=Schedule("small", 16))] == [(17.0,), (19.5,)]
    # Of 17 there is no short run to compare with.
    assert "| float | small | 16 | 2 | 19.00 | 18.25 |" in render(runs, PAPER)
    assert "large" not in render(runs, PAPER)


def test_the_leak_free_form_has_a_table_of_its_own():
    runs = [run(18.0), run(90.0, task="mackey_glass-ahead", constant=95.0)]
    page = render(runs, PAPER)
    assert rows_of(page, "Without the leak")["float"] == ["0-1", "90.0", "not run"]
    assert rows_of(page, "Without the leak")["constant"] == ["", "95.0", "-"]
    assert rows_of(page, "Figure 2")["float"][1] == "18.0"


def test_curves_say_whether_they_have_flattened():
    runs = [
        run(1.0, curves={"train": [9.0] * 4, "validation": [8.0, 6.0, 5.0, 5.0]}),
        run(1.0, tau=9, curves={"train": [9.0] * 4, "validation": [6.0, 4.0, 3.0, 2.0]}),
        run(1.0, tau=9, seed=1, curves={"train": [9.0] * 4, "validation": [float("nan")] * 4}),
    ]
    assert rows_of(render(runs, PAPER), "Have the curves")["float"][:3] == ["7.00", "5.00", "4.00"]


@pytest.mark.parametrize("results", [[], [result_of(line(), {})]])
def test_a_page_without_runs_says_what_to_run(results: list[Result]):
    assert "Nothing was run yet: `python -m benchmarks.mackey_glass run`" in render(results, PAPER)
