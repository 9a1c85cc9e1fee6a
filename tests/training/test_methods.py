"""PTQ, QAFT and QAT: what each changes, keeps, and writes down."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from tests.support import assert_same_bits, small_config, small_model, small_task

from qs5.errors import DivergedError, UserError
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import S5Model, init_model
from qs5.quantization.build import eigenvalue_codes, prepared
from qs5.quantization.spec import spec_of
from qs5.training import methods, record, run
from qs5.training.loop import Observer, StepReport
from qs5.training.options import TrainOptions
from qs5.training.recipe import Recipe

TASK = small_task()
OPTIONS = TrainOptions(epochs=3, batch_size=8, ssm_lr=5e-3, lr=2e-2, warmup_epochs=0.0, eval_batch_size=10)
RECIPE = Recipe(task="small", model=small_config(layers=1), train=OPTIONS)
# Dropout draws random numbers, which take as long to compile as the rest of a step: only where it may matter.
DROPOUT = dataclasses.replace(RECIPE, model=RECIPE.model.replace(dropout=0.1))
SPEC = spec_of("W8A8Abar16")


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> tuple[S5Model, run.RunInfo]:
    """A float run."""
    out = tmp_path_factory.mktemp("float") / "run"
    model = methods.train(RECIPE, TASK, out=out)
    return model, run.read_run(out)


def test_ptq_changes_no_parameter_and_can_be_judged_again(parent, tmp_path: Path) -> None:
    model, info = parent
    ptq = methods.ptq(model, TASK, SPEC, parent=info, name="float", out=tmp_path).info
    stored = run.read_model(tmp_path).model
    assert_same_bits(stored, model)
    reread = run.read_run(tmp_path)
    assert reread == dataclasses.replace(ptq, recipe=reread.recipe)
    assert reread.plan is not None and reread.plan["data"] == TASK.train.identity
    first, second = (methods.judge(m, TASK, info=i) for m, i in ((model, ptq), (stored, reread)))
    assert (first.value, first.loss) == (second.value, second.loss)
    assert (second.method, second.spec) == ("ptq", "W8A8Abar16 (sequential)")
    scale = {k: second.extra[k] for k in ("spec", "widths", "parent", "epochs", "length")}
    assert scale == {
        "spec": "W8A8Abar16",
        "widths": SPEC.widths(),
        "parent": "float",
        "epochs": RECIPE.train.epochs,
        "length": 12,
    }
    assert second.extra["model"]["H"] == model.config.H


def test_ptq_says_how_it_was_made_and_is_the_same_run_by_any_command(
    parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, info = parent
    for command in ("qs5 quantize float", "qs5 quantize ./float"):
        monkeypatch.setattr(record, "command_line", lambda command=command: command)
        methods.ptq(model, TASK, SPEC, parent=info, name="float", out=tmp_path)
        made = run.read_run(tmp_path).made
        assert made["command"] == command and set(made) == {"command", "commit", "machine", "time"}
    assert info.made == {}  # a training's epochs say it


def test_other_operators_keep_the_parameters() -> None:
    model = small_model()
    assert (model.config.gelu, model.config.gate) == ("gelu", "sigmoid")
    changed = methods.with_operators(model, gelu="qgelu", gate=None)
    assert changed.config == model.config.replace(gelu="qgelu")
    assert methods.with_operators(changed, gelu=None, gate="hard_sigmoid").config == model.config.replace(
        gelu="qgelu", gate="hard_sigmoid"
    )
    for mine, theirs in zip(jax.tree.leaves(changed), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match="gelu"):
        methods.with_operators(model, gelu="relu", gate=None)


def test_ptq_is_not_the_float_model(parent, tmp_path: Path) -> None:
    model, info = parent
    spec = spec_of("W2A8,rounding=nearest")
    coarse = methods.ptq(model, TASK, spec, parent=info, name="float", out=tmp_path).info
    assert methods.judge(model, TASK, info=coarse).loss != methods.judge(model, TASK, info=info).loss


def test_refused_spec_leaves_nothing_behind(parent, tmp_path: Path) -> None:
    model, info = parent
    spec = spec_of("W8A8Abar16,dense=12,exact=true")
    with pytest.raises(UserError, match="no exact integer forward pass"):
        methods.ptq(model, TASK, spec, parent=info, name="float", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_qaft_starts_from_the_parent_and_keeps_the_folded_statistics(parent, tmp_path: Path) -> None:
    model, info = parent
    still = methods.qaft_options(OPTIONS, lr_factor=0.0, epochs=1)
    tuned = methods.qaft(model, TASK, SPEC, parent=info, name="float", options=still, out=tmp_path / "still")
    # Learning rate 0: only weight decay could move anything, and it is scaled by the rate.
    assert_same_bits(tuned, model)
    moving = methods.qaft_options(OPTIONS, lr_factor=0.1, epochs=1)
    moved = methods.qaft(model, TASK, SPEC, parent=info, name="float", options=moving, out=tmp_path / "moved")
    assert not np.array_equal(moved.encoder.weight, model.encoder.weight)
    for mine, theirs in zip(moved.layers, model.layers, strict=True):
        assert_same_bits((mine.norm.mean, mine.norm.var), (theirs.norm.mean, theirs.norm.var))
    assert run.read_run(tmp_path / "moved").parent == "float"


def test_qaft_options_are_one_and_ten_percent() -> None:
    options = methods.qaft_options(OPTIONS.replace(epochs=150, ssm_lr=4e-3, lr=1.6e-2))
    assert (options.epochs, options.ssm_lr, options.lr) == (15, 4e-5, 1.6e-4)
    assert options.freeze_statistics
    assert methods.qaft_options(OPTIONS).epochs == 1


POLAR = spec_of("W4A8,form=polar")


def test_ptq_in_polar_form_reorders_modes_and_keeps_its_codes(parent, tmp_path: Path) -> None:
    model, info = parent
    done = methods.ptq(
        model, TASK, POLAR.replace(rounding="nearest"), parent=info, name="float", out=tmp_path
    )
    stored, reread = run.read_model(tmp_path).model, run.read_run(tmp_path)
    assert_same_bits(stored, done.model)
    floats = [methods.judge(m, TASK, info=info).loss for m in (model, stored)]
    assert floats[0] == pytest.approx(floats[1], rel=1e-5)
    assert reread.plan is not None and set(reread.plan["eigenvalues"]) == {
        f"layers.{i}.ssm.state.weight" for i in range(len(model.layers))
    }
    first, second = (methods.judge(stored, TASK, info=i) for i in (done.info, reread))
    assert (first.value, first.loss) == (second.value, second.loss)


def test_qaft_in_polar_form_moves_all_but_the_eigenvalues(parent, tmp_path: Path) -> None:
    model, info = parent
    options = methods.qaft_options(OPTIONS, lr_factor=0.5, epochs=1)
    tuned = methods.qaft(model, TASK, POLAR, parent=info, name="float", options=options, out=tmp_path)
    for mine, start in zip(tuned.layers, prepared(model, POLAR).layers, strict=True):
        for name in ("Lambda_re", "Lambda_im", "log_step"):
            assert_same_bits(getattr(mine.ssm, name), getattr(start.ssm, name))
        for name in ("B_re", "C_im", "D"):
            assert not np.array_equal(getattr(mine.ssm, name), getattr(start.ssm, name))
    assert run.read_run(tmp_path).recipe.train.freeze_eigenvalues


@pytest.mark.parametrize("form", ["linear", pytest.param("polar", marks=pytest.mark.slow)])
def test_qaft_starts_from_reconstructed_weights_where_they_are_asked_for(
    form: str, parent, tmp_path: Path
) -> None:
    """With learning rates of zero what it ends with is where it began: bit for bit the model of PTQ."""
    model, info = parent
    spec, options = spec_of(f"W4A8,form={form},rounding=reconstructed"), OPTIONS.replace(epochs=1)
    frozen = methods.qaft_options(options, lr_factor=0.0, epochs=1)
    start = methods.ptq(model, TASK, spec, parent=info, name="float", out=tmp_path / "ptq").model
    for rebuilt, float_ in zip(start.layers, prepared(model, spec).layers, strict=True):
        assert not np.array_equal(rebuilt.ssm.C_re, float_.ssm.C_re)
    tuned = methods.qaft(model, TASK, spec, parent=info, name="float", options=frozen, out=tmp_path / "qaft")
    assert_same_bits(tuned, start)
    kept = run.read_run(tmp_path / "qaft")
    assert kept.recipe.train.freeze_eigenvalues
    assert kept.spec is not None and kept.spec["rounding"] == "reconstructed"
    moving = methods.qaft_options(options, lr_factor=0.5, epochs=1)
    moved = methods.qaft(model, TASK, spec, parent=info, name="float", options=moving, out=tmp_path / "moved")
    for mine, old in zip(moved.layers, start.layers, strict=True):
        assert_same_bits(mine.ssm.Lambda_re, old.ssm.Lambda_re)
        assert not np.array_equal(mine.ssm.C_re, old.ssm.C_re)


def test_training_from_scratch_refuses_to_reconstruct(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rounding=reconstructed needs a float model"):
        methods.qat(RECIPE, TASK, spec_of("W4A8,rounding=reconstructed"), out=tmp_path / "qat")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_qat_in_polar_form_codes_its_eigenvalues_anew(tmp_path: Path) -> None:
    codes = []
    watched = Observer(epoch=lambda report, model, arithmetic: codes.append(arithmetic.plan.eigenvalues))
    methods.qat(RECIPE, TASK, POLAR, out=tmp_path, observer=watched)
    info, stored = run.read_run(tmp_path), run.read_model(tmp_path).model
    start = prepared(init_model(jax.random.key(info.recipe.train.seed), stored.config), POLAR)
    assert not np.array_equal(stored.layers[0].ssm.Lambda_im, start.layers[0].ssm.Lambda_im)
    assert info.plan is not None and info.plan["eigenvalues"]
    assert codes[0] == eigenvalue_codes(start, POLAR)
    assert any(later != codes[0] for later in codes[1:])


def test_qat_keeps_the_grids_its_best_model_was_judged_under(tmp_path: Path) -> None:
    methods.qat(RECIPE, TASK, SPEC, out=tmp_path)
    info, stored = run.read_run(tmp_path), run.read_model(tmp_path).model
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    best = max(records, key=lambda r: (r["value"], -r["epoch"]))
    again = methods.judge(stored, TASK, info=info, split="validation")
    assert (again.value, again.loss) == (best["value"], best["loss"])
    assert info.method == "qat" and info.plan is not None


def test_qat_whose_weights_become_nan_says_that_it_diverged(tmp_path: Path) -> None:
    """In the first of three epochs: before the second, scales are calibrated anew, of which there are none."""
    steep = dataclasses.replace(RECIPE, train=OPTIONS.replace(lr=1e30, ssm_lr=1e30))
    with pytest.raises(DivergedError, match="training diverged: no epoch gave a finite validation accuracy"):
        methods.qat(steep, TASK, SPEC, out=tmp_path)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_interrupted_qat_gives_the_same_bits(tmp_path: Path) -> None:
    whole = methods.qat(DROPOUT, TASK, SPEC, out=tmp_path / "whole")

    def stop(report: StepReport) -> None:
        if report.epoch == 2 and report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        methods.qat(DROPOUT, TASK, SPEC, out=tmp_path / "cut", observer=Observer(step=stop))
    resumed = methods.qat(DROPOUT, TASK, SPEC, out=tmp_path / "cut")
    assert_same_bits(resumed, whole)
    assert_same_bits(run.read_model(tmp_path / "cut").model, run.read_model(tmp_path / "whole").model)
    assert (tmp_path / "cut" / "run.json").read_bytes() == (tmp_path / "whole" / "run.json").read_bytes()


@pytest.mark.slow
def test_training_through_the_exact_forward_learns(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, train=OPTIONS.replace(epochs=6))
    methods.qat(recipe, TASK, spec_of("W8A8Abar16,exact=true"), out=tmp_path)
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert records[-1]["train_loss"] < 0.8 * records[0]["train_loss"]


def test_float_run_is_judged_in_float(parent) -> None:
    _, info = parent
    assert run.arithmetic_of(info, RECIPE.model) == FloatArithmetic()
