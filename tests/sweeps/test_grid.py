"""A grid as written becomes cells with an identity."""

import dataclasses
from pathlib import Path

import pytest
from tests.support import small_recipe
from tests.sweeps.cells import START, cells

from qs5.cli import main
from qs5.errors import UserError
from qs5.quantization.spec import spec_of, to_json
from qs5.sweeps.cell import Cell
from qs5.sweeps.grid import Axis, Start, cells_of, parse_axes
from qs5.training.run import RunInfo

FLOAT_RUN = Start(name="there", recipe=small_recipe(), info=RunInfo(recipe=small_recipe()))


def test_axes_may_be_separated_by_words_or_commas():
    expected = (Axis("spec", ("W8A8", "W4A8")), Axis("seed", ("0", "1")))
    assert parse_axes(["spec=W8A8,W4A8", "seed=0,1"]) == expected
    assert parse_axes(["spec=W8A8,W4A8,seed=0,1"]) == expected


def test_every_combination_is_one_cell_and_floats_come_first():
    found = cells("spec=W8A8,W4A8", "seed=0,1,2", methods=("qaft", "ptq"))
    assert [c.method for c in found] == ["fp"] * 3 + ["ptq"] * 6 + ["qaft"] * 6
    assert len({c.name for c in found}) == len(found)
    for cell in found[3:]:
        assert isinstance(cell.parent, Cell)
        assert cell.parent.name in {c.name for c in found[:3]}
        assert cell.parent.seed == cell.seed
    assert {(c.spec, c.seed) for c in found if c.method == "ptq"} == {
        (spec, seed) for spec in ("W8A8", "W4A8") for seed in (0, 1, 2)
    }


def test_a_cell_of_a_given_run_starts_from_it_and_needs_no_float_cell():
    (cell,) = cells_of(FLOAT_RUN, ("ptq",), parse_axes(["spec=W8A8"]))
    assert cell.parent == "there"


def test_fields_of_the_spec_operators_and_the_recipe_are_axes():
    _, cell = cells(
        "spec=W8A8", "schedule=parallel", "range_rule=aqt", "gelu=qgelu", "model.norm=layer", "train.lr=0.5",
        "qaft.epochs=3", "qaft.lr_factor=0.1", methods=("qaft",),
    )  # fmt: skip
    assert cell.spec == "W8A8,schedule=parallel,range_rule=aqt"
    assert (cell.gelu, cell.gate, cell.epochs, cell.lr_factor) == ("qgelu", None, 3, 0.1)
    assert (cell.recipe.model.norm, cell.recipe.train.lr) == ("layer", 0.5)
    assert isinstance(cell.parent, Cell) and cell.parent.recipe == cell.recipe


def test_what_a_method_ignores_makes_no_cell_of_its_own():
    found = cells("spec=W8A8", "qaft.epochs=1,2", methods=("fp", "ptq", "qaft"))
    assert [c.method for c in found] == ["fp", "ptq", "qaft", "qaft"]


def test_the_name_is_the_settings_and_nothing_else():
    (_, cell), (_, swapped), (_, *wider) = (
        cells("spec=W8A8", "seed=1"),
        cells("seed=1", "spec=W8A8"),
        cells("spec=W8A8,W4A8", "seed=1"),
    )
    assert cell.name == swapped.name and cell.name in {c.name for c in wider}
    changed = [
        cells("spec=W8A8", "seed=2")[-1],
        cells("spec=W8A8", "seed=1", "state=8")[-1],
        cells("spec=W8A8", "seed=1", "gelu=qgelu")[-1],
        cells("spec=W8A8", "seed=1", "train.lr=0.5")[-1],
        cells("spec=W8A8", "seed=1", "model.H=8")[-1],
        cells("spec=W8A8", "seed=1", methods=("qat",))[-1],
        cells_of(dataclasses.replace(FLOAT_RUN), ("qaft",), parse_axes(["spec=W8A8", "seed=1"]))[-1],
    ]
    assert len({cell.name, *(c.name for c in changed)}) == 1 + len(changed)


def test_an_option_that_a_later_version_adds_leaves_the_names_as_they_are():
    """A recipe that says what is the default anyway is the same cell as one that does not know the option."""
    (plain,), (said,) = cells("seed=1", methods=("fp",)), cells("seed=1", "train.lr_min=0.0", methods=("fp",))
    assert plain.name == said.name
    assert "lr_min" not in plain.identity["recipe"]["train"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("spec",), "expected NAME=VALUE,..., got 'spec'"),
        (("spec=W8A8,",), "expected a value after every '=' and ',' of spec"),
        (("spec=",), "expected a value after every '=' and ',' of spec"),
        (("spec=W9A9",), "unknown spec 'W9A9'"),
        (("spec=W8A8,W8A8",), "expected different values of spec, got W8A8 twice"),
        (("spec=W8A8", "spec=W4A8"), "expected every axis once, got spec twice"),
        (("spec=W8A8", "sed=1"), "expected an axis among spec, seed"),
        (("spec=W8A8", "seed=x"), "seed must be an integer, got 'x'"),
        (("spec=W8A8", "state=99"), "expected 1 to 16 bits or float for state, got 99"),
        (("spec=W8A8", "gelu=relu"), "expected gelu=gelu or qgelu, got 'relu'"),
        (("spec=W8A8", "model.layerz=1"), "unknown key layerz"),
        (("spec=W8A8", "model.P=7"), "P/J must be even"),
        (("spec=W8A8", "qaft.epochs=many"), "expected numbers for qaft.epochs"),
        (("spec=W8A8", "qaft.lr_factor=0"), "above 0, got [0.0]"),
        (("seed=0",), "expected an axis spec for qaft"),
    ],
)
def test_a_bad_grid_gets_one_sentence(words: tuple[str, ...], said: str):
    with pytest.raises(UserError) as error:
        cells(*words, methods=("qaft",))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("start", "method", "words", "said"),
    [
        (START, "fly", ("seed=0",), "expected --method among fp, qat, ptq, qaft, got 'fly'"),
        (FLOAT_RUN, "ptq", ("spec=W8A8", "model.H=4"), "there is trained: model.H is what it is"),
        (FLOAT_RUN, "ptq", ("spec=W8A8", "seed=0,1"), "seed with ptq would train or change nothing"),
        (FLOAT_RUN, "fp", (), "fp would train or change nothing"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(start: Start, method: str, words: tuple[str, ...], said: str):
    with pytest.raises(UserError, match=said):
        cells_of(start, (method,), parse_axes(words))


def test_a_quantized_run_is_no_start():
    info = RunInfo(recipe=small_recipe(), spec=to_json(spec_of("W8A8")))
    with pytest.raises(UserError, match="expected a recipe or a float run, got one quantized to W8A8"):
        cells_of(dataclasses.replace(FLOAT_RUN, info=info), ("ptq",), parse_axes(["spec=W8A8"]))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--grid", "spec=W9A9"], "unknown spec 'W9A9'"),
        (["--grid", "spec=W8A8", "--jobs", "0"], "expected --jobs at least 1, got 0"),
        (["--grid", "spec=W8A8", "--only", "x"], "no cell 'x' in this grid"),
    ],
)
def test_on_the_command_line_a_mistake_is_one_line_and_exit_code_2(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["sweep", "digits", "-o", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
