"""Models trained together become what each becomes alone."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.support import assert_same_bits, small_model

from qs5.errors import UserError
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.files import named_arrays
from qs5.model.network import S5Model
from qs5.quantization.build import arithmetic_for_spec
from qs5.quantization.spec import spec_of
from qs5.tasks.task import Encoding, Split, Task
from qs5.training import together
from qs5.training.evaluate import evaluate
from qs5.training.loop import EpochReport, Observer, fit
from qs5.training.options import TrainOptions
from qs5.training.together import Member, fit_together, outputs_together

OPTIONS = TrainOptions(epochs=3, batch_size=4, eval_batch_size=4, ssm_lr=1e-2, lr=1e-2, official_quirks=True)
PAPER = "schedule=parallel,range_rule=aqt,quantized_backward=true"


def regression_task(seed: int) -> Task:
    """The next two samples of a noisy line: 8 training sequences of 12 steps, 6 to validate (a batch and a half)."""
    rng = np.random.default_rng(seed)

    def split(n: int) -> Split:
        x = rng.normal(1.0, 0.3, size=(n, 12, 2)).astype(np.float32)
        return Split(x=x, y=np.roll(x, -1, axis=1), lengths=None)

    return Task(
        name="noise", train=split(8), validation=split(6), test=split(6),
        encoding=Encoding(scale=(1.0, 1.0), offset=(0.0, 0.0)), classes=None, units=None,
        objective="regression", metric="smape",
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def compile_once():
    """Trainings with the same options share a compiled step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "_stepper", functools.cache(together._stepper))
        yield


def members(**config: Any) -> list[Member]:
    """Two that differ in data, initialisation and order."""
    changes = {"d_in": 2, "d_out": 2, "layers": 1, "head": "regression", "activation": "gelu", **config}
    return [Member(_about_one(small_model(s, **changes)), regression_task(s), s) for s in (0, 1)]


def _about_one(model: S5Model) -> S5Model:
    """Predictions of the targets' sign: where signs differ sMAPE is flat, and Adam would scale the rounding of a
    gradient of zero up to a full step."""
    return eqx.tree_at(lambda m: m.decoder.bias, model, jnp.ones_like(model.decoder.bias))


def alone(member: Member, arithmetic: Any, options: TrainOptions) -> tuple[S5Model, list[EpochReport], int]:
    reports: list[EpochReport] = []
    state = fit(
        member.model, member.task, arithmetic_for=lambda _: arithmetic,
        options=options.replace(seed=member.seed), observer=Observer(epoch=lambda r, *_: reports.append(r)),
    )  # fmt: skip
    return state.best_model, reports, state.best_epoch


def unstack(models: S5Model) -> list[S5Model]:
    """The members of a stack, one by one."""
    count = jax.tree.leaves(models)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], models) for i in range(count)]


FOUR_BITS = f"a=4,b=4,c=4,d=4,ssm_act=4,dense=float,act=float,{PAPER}"
TOLERANCE = 1e-5
"""float32 sums in another order, through 6 steps of Adam."""


@pytest.mark.slow
# Quantized for one epoch: a sum in another order can round to another grid point, and then the two part.
@pytest.mark.parametrize(("spec", "epochs"), [("float", 3), (FOUR_BITS, 1)])
def test_two_models_trained_together_are_the_two_trained_alone(spec: str, epochs: int):
    pair = members()
    config, options = pair[0].model.config, OPTIONS.replace(epochs=epochs)
    arithmetic = FloatArithmetic() if spec == "float" else arithmetic_for_spec(spec_of(spec), config, None)
    state = fit_together(pair, arithmetic=arithmetic, options=options)
    outputs = outputs_together(
        state.best_model, [m.task for m in pair], "test", arithmetic=arithmetic, batch_size=4
    )
    for i, (member, model) in enumerate(zip(pair, unstack(state.best_model), strict=True)):
        single, reports, best_epoch = alone(member, arithmetic, options)
        assert state.best_epoch[i] == best_epoch
        expected = [(r.train_loss, r.metric) for r in reports]
        np.testing.assert_allclose(state.curves[:, :, i], expected, rtol=TOLERANCE)
        for name, array in named_arrays(single).items():
            np.testing.assert_allclose(
                named_arrays(model)[name], array, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
            )
        judged = evaluate(single, member.task.test, task=member.task, arithmetic=arithmetic, batch_size=4)
        smape = together.score(member.task, member.task.test, outputs[i])
        np.testing.assert_allclose(smape, judged.metric, rtol=TOLERANCE)
    # They do differ, so that neither was trained in the place of the other.
    first, second = (named_arrays(m)["encoder.weight"] for m in unstack(state.best_model))
    assert np.abs(first - second).max() > 0.1


def test_training_goes_on_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(together, "CHECKPOINT_SECONDS", 0.0)
    pair = members()
    whole = fit_together(pair, arithmetic=FloatArithmetic(), options=OPTIONS)

    def stop(state: together.TogetherState, _: float) -> None:
        if state.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_together(pair, arithmetic=FloatArithmetic(), options=OPTIONS, run=tmp_path, watcher=stop)
    epochs = list[int]()
    again = fit_together(
        pair, arithmetic=FloatArithmetic(), options=OPTIONS, run=tmp_path, watcher=lambda s, _: epochs.append(s.epoch),
    )  # fmt: skip
    assert epochs == [3]
    assert_same_bits(again, whole)


def test_a_member_that_diverges_is_not_selected_and_leaves_the_others_alone():
    good, bad = members()
    whole = fit_together([good, bad], arithmetic=FloatArithmetic(), options=OPTIONS)
    nan = dataclasses.replace(bad.task.train, y=np.full_like(bad.task.train.y, np.nan))
    bad = bad._replace(task=dataclasses.replace(bad.task, train=nan))
    state = fit_together([good, bad], arithmetic=FloatArithmetic(), options=OPTIONS)
    assert state.best_epoch == (whole.best_epoch[0], 0) and state.best_metric[1] == np.inf
    np.testing.assert_array_equal(state.curves[:, :, 0], whole.curves[:, :, 0])


def test_members_that_do_not_fit_together_are_refused():
    first, second = members()
    options, arithmetic = OPTIONS, FloatArithmetic()
    with pytest.raises(UserError, match="one configuration and tasks of one shape"):
        short = dataclasses.replace(second.task, test=second.task.test.take(np.arange(3)))
        fit_together([first, second._replace(task=short)], arithmetic=arithmetic, options=options)
    with pytest.raises(UserError, match="leave out patience"):
        fit_together([first], arithmetic=arithmetic, options=options.replace(patience=2))
    with pytest.raises(UserError, match="at least one model"):
        fit_together([], arithmetic=arithmetic, options=options)
    with pytest.raises(UserError, match="different lengths"):
        train = dataclasses.replace(second.task.train, lengths=np.full(8, 12, np.int32))
        ragged = dataclasses.replace(second.task, train=train)
        fit_together([second._replace(task=ragged)], arithmetic=arithmetic, options=options)
