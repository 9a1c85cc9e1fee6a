"""The Mackey-Glass study: which models are trained, once each; what a forecast is worth that has learnt nothing."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import mackey_glass as study
from benchmarks.mackey_glass import Piece, best_constant, copied, spec_text
from tests.support import small_task

from qs5.errors import UserError
from qs5.quantization.spec import spec_of
from qs5.reports.figures.mackey_glass import read_samples
from qs5.tasks import Task
from qs5.tasks.mackey_glass import copied_channels, load_mackey_glass
from qs5.tasks.metrics import smape
from qs5.tasks.task import Split
from qs5.training.record import RunRecord


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Piece]:
    """The pieces that are trained: each leaves records that say its seed for an error."""
    pieces: list[Piece] = []

    def train(piece: Piece) -> list[RunRecord]:
        pieces.append(piece)
        return [
            RunRecord(
                task="mackey_glass", data="", method="qat", spec="x", seed=piece.seed, split="test", metric="smape",
                value=float(piece.seed), loss=0.0, n=52, selection="", seconds=1.0, commit="c",
                extra=piece.identity | {"tau": tau},
            )
            for tau in piece.taus
        ]  # fmt: skip

    monkeypatch.setattr(study, "_train", train)
    return pieces


def run(folder: Path, *arguments: str) -> None:
    study.main(["run", "--results", str(folder), *arguments])


def test_every_model_is_trained_once(trained: list[Piece], tmp_path: Path):
    small = ("--panels", "float", "b", "--bits", "8", "4", "--taus", "1", "9")
    run(tmp_path, *small, "--seeds", "0")
    assert [(p.panel, p.bits, p.seed, p.taus) for p in trained] == [
        ("float", None, 0, (1, 9)), ("b", 8, 0, (1, 9)), ("b", 4, 0, (1, 9))
    ]  # fmt: skip
    run(tmp_path, *small, "--seeds", "0")
    assert len(trained) == 3
    run(tmp_path, *small, "--seeds", "0", "1")
    assert [p.seed for p in trained[3:]] == [1, 1, 1]
    # One more delay: only the models of that delay. Other epochs and the other form are other models.
    run(tmp_path, "--panels", "b", "--bits", "8", "--taus", "1", "9", "17", "--seeds", "0")
    run(tmp_path, "--panels", "b", "--bits", "8", "--taus", "1", "--seeds", "0", "--epochs", "3")
    run(tmp_path, "--panels", "b", "--bits", "8", "--taus", "1", "--seeds", "0", "--form", "ahead")
    assert [(p.taus, p.epochs, p.form) for p in trained[6:]] == [
        ((17,), 40, "delayed"), ((1,), 3, "delayed"), ((1,), 40, "ahead")
    ]  # fmt: skip
    assert len((tmp_path / "mackey_glass.jsonl").read_text().splitlines()) == 6 + 6 + 3
    assert "0.5 (0.0-1.0)" in (tmp_path / "mackey_glass.md").read_text()


def test_a_piece_that_was_killed_while_it_wrote_is_completed(trained: list[Piece], tmp_path: Path):
    arguments = ("--panels", "float", "--taus", "1", "9", "17", "--seeds", "0")
    run(tmp_path, *arguments)
    path = tmp_path / "mackey_glass.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[1])
    run(tmp_path, *arguments)
    assert [p.taus for p in trained] == [(1, 9, 17), (1, 17)]


def test_the_whole_study_is_figure_2(trained: list[Piece], tmp_path: Path):
    run(tmp_path)
    assert len(trained) == 4 * (1 + 4 * 4)
    assert sum(len(p.taus) for p in trained) == 544
    assert {p.seed for p in trained[:17]} == {0}  # a whole figure of one seed first


def test_panels_quantize_what_the_paper_says():
    def widths(panel: str) -> str:
        return spec_of(spec_text(panel, 4)).widths()

    assert widths("a") == "a4 b4 c4 d4 densef ssm_act4 actf"
    assert widths("b") == "a4 bf cf df densef ssm_actf actf"
    assert widths("c") == "af b4 c4 d4 densef ssm_act4 actf"
    assert widths("d") == "af bf cf df densef ssm_act4 actf"
    spec = spec_of(spec_text("a", 1))
    assert (spec.schedule, spec.range_rule, spec.quantized_backward) == ("parallel", "aqt", True)


def test_the_constant_is_the_best_one(rng: np.random.Generator):
    y = rng.uniform(0.1, 2.0, size=(70, 10, 1)).astype(np.float32)
    split = Split(x=y, y=y, lengths=None)
    task = small_task(
        train=split, validation=split, test=split, classes=None, objective="regression", metric="smape"
    )
    found = smape(best_constant(task), y, None)
    errors = [smape(np.full_like(y, c), y, None) for c in np.linspace(0.1, 2.0, 400)]
    # Its levels are 99 quantiles of every seventh number.
    assert min(errors) <= found < 1.01 * min(errors)


@pytest.fixture(scope="module")
def series() -> Task:
    return load_mackey_glass(tau=17, seed=3)


def test_copied_channels_are_copies(series: Task):
    """The facts of the issue: for a delay of 17, eight channels, 58 steps ago; none for short and long delays."""
    found = copied_channels(17)
    assert found == {i: (i + 2, 58) for i in range(8)}
    for channel, (source, delay) in found.items():
        np.testing.assert_array_equal(series.test.y[:, delay:, channel], series.test.x[:, :-delay, source])
    assert copied_channels(33)[0] == (1, 41) and len(copied_channels(33)) == 9
    assert len(copied_channels(9)) == 6 and copied_channels(1) == copied_channels(100) == {}
    y = series.test.y
    right = np.abs(copied(series, 17) - y) == 0.0
    assert right[:, 58:, :8].all() and not right[..., 8:].all() and not right[:, :58].all()
    assert smape(copied(series, 17), y, None) < 0.5 * smape(best_constant(series), y, None)


def test_samples_of_figure_4(series: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study, "_task", lambda *_: series)
    study.main(["samples", "--results", str(tmp_path)])
    samples = read_samples(tmp_path / "mackey_glass_samples.csv")
    assert list(samples) == [1.0, 17.0, 57.0]
    np.testing.assert_allclose(samples[17.0], series.test.x[0, :100], atol=5e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tau,step\n", "expected columns tau, step and one a channel"),
        ("tau,step,x0\n1,0,0.5\n1,1,0.2x\n", "line 3: expected numbers, got '1,1,0.2x'"),
        ("tau,step,x0\n1\n", "line 2: expected numbers, got '1'"),
        ("tau,step,x0,x1\n1,0,0.5,0.5\n1,1,0.5\n", "line 3: expected 4 numbers, got 3"),
    ],
)
def test_damaged_samples_are_refused_in_one_line(tmp_path: Path, text: str, words: str):
    path = tmp_path / "samples.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        read_samples(path)
    assert "make it again" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_piece_is_trained_judged_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, series: Task
):
    """Two delays (here of the same data) for one epoch of one batch, 4 bits everywhere in the SSM."""
    few = {name: split.take(np.arange(17)) for name, split in series.splits.items()}
    monkeypatch.setattr(study, "_task", lambda *_: Task(**{**vars(series), **few}))
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "--panels", "a", "--bits", "4", "--taus", "17", "33", "--seeds", "3", "--epochs", "1")
    records = [json.loads(text) for text in (tmp_path / "mackey_glass.jsonl").read_text().splitlines()]
    assert [r["extra"]["tau"] for r in records] == [17, 33]
    one: dict[str, Any] = records[0]
    assert (one["method"], one["seed"], one["n"], one["epoch"]) == ("qat", 3, 17, 1)
    assert one["spec"].startswith("a=4,b=4,c=4,d=4,dense=float,ssm_act=4,act=float,schedule=parallel")
    assert 0.0 < one["value"] < 200.0 and one["value"] != one["extra"]["smape_running"]
    assert len(one["extra"]["curves"]["validation"]) == 1
    # The same data, initialisation and order: the same model.
    assert records[1]["value"] == pytest.approx(one["value"], rel=1e-5)
    assert not list((tmp_path / "runs" / "mackey_glass").iterdir())
