"""The digits model, from training to a searched spec that the other verbs take."""

import json
from pathlib import Path

import pytest

from qs5 import cli, integer
from qs5.quantization.spec import spec_of

pytestmark = pytest.mark.slow
BUDGET = 4_200


@pytest.mark.filterwarnings("ignore")
def test_train_search_quantize_lower_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    size = ["--model.layers", "1", "--model.H", "8", "--model.P", "8"]
    assert cli.main(["train", "digits", "--out", "float", *size, "--train.epochs", "3"]) == 0
    search = [
        "search",
        "float",
        "--budget",
        f"bytes={BUDGET}",
        "-o",
        "found",
        "--calibration",
        "200",
        "--validation",
        "200",
    ]
    assert cli.main(search) == 0
    assert Path("found/bytes-4200.qs5").stat().st_size <= BUDGET
    spec = spec_of("found/bytes-4200.toml")

    assert cli.main(["quantize", "float", "--spec", "found/bytes-4200.toml", "--out", "ptq"]) == 0
    assert json.loads(Path("ptq/run.json").read_text())["spec"]["overrides"] == [
        list(r) for r in spec.overrides
    ]
    assert cli.main(["lower", "ptq", "-o", "model.qs5"]) == 0
    quick, slow = (integer.load(name) for name in ("found/bytes-4200.qs5", "model.qs5"))
    assert [op.out.bits for op in quick.ops] == [op.out.bits for op in slow.ops]
    assert [getattr(op, "bits", 0) for op in quick.ops] == [getattr(op, "bits", 0) for op in slow.ops]
    assert cli.main(["inspect", "ptq"]) == 0
    assert cli.main(["evaluate", "model.qs5"]) == 0
    assert cli.main(["sweep", "float", "--grid", "spec=found/bytes-4200.toml", "-o", "sweep"]) == 0
    out = capfd.readouterr().out
    assert spec.name in out
    assert cli.main(search) == 0  # goes on where it was
    assert "(known)" in capfd.readouterr().out
