"""The command line as a user meets it: a whole small journey, and one clear line with exit code 2 for mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest

from qs5.cli import common, main
from qs5.cli.common import key_values
from qs5.training.loop import StepReport

TINY = (
    "--model.layers",
    "1",
    "--model.H",
    "4",
    "--model.P",
    "4",
    "--model.dropout",
    "0",
    "--train.epochs",
    "2",
    "--train.warmup-epochs",
    "0",
)


def _json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float run on digits, two epochs."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "digits", "--out", str(out), *TINY]) == 0
    return out


def test_journey_from_training_to_a_judged_quantized_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Not reconstructed, which takes long: see tests/training/test_methods.py.
    out, spec = tmp_path / "ptq", "W4A8,exact=true,rounding=nearest"
    assert main(["quantize", str(trained), "--spec", spec, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), "--split", "test", "--json"]) == 0
    result = _json(capsys)
    assert result["n"] == 269 and result["backend"] == "jax" and result["spec"] == spec
    assert 0.0 <= result["accuracy"] <= 1.0
    assert (out / "records.jsonl").read_text().count('"split": "test"') == 1
    assert main(["inspect", str(out), "--examples", "32", "--save"]) == 0
    # A title is broken into lines where the folder's name is long.
    table = " ".join(capsys.readouterr().out.split())
    assert (out / "inspection.json").is_file() and "is for qs5 report" in table
    assert "layers.0.ssm.state" in table and spec in table and "4.00 bits a weight" in table


@pytest.mark.parametrize(("method", "examples"), [("qaft", 512), ("qat", 128)])
def test_quantized_training(
    method: str, examples: int, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """QAT calibrates on fewer sequences, and more often."""
    out = tmp_path / method
    assert main(["quantize", str(trained), "--method", method, "--epochs", "1", "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), "--json"]) == 0
    result = _json(capsys)
    assert result["method"] == method and result["spec"] == "W8A8Abar16"
    assert json.loads((out / "run.json").read_text())["plan"]["examples"] == examples


def test_the_same_command_again_continues_and_another_one_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "model.safetensors").read_bytes()
    assert main(["train", "digits", "--out", str(trained), *TINY]) == 0
    assert (trained / "model.safetensors").read_bytes() == before
    assert main(["train", "digits", "--out", str(trained), *TINY, "--train.lr", "0.5"]) == 2
    assert "holds another run" in capsys.readouterr().err
    assert (trained / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_several_seeds_in_one_call(tmp_path: Path) -> None:
    tiny = [a if a != "2" else "1" for a in TINY]
    assert main(["train", "digits", "--out", str(tmp_path), "--seeds", "1", "2", *tiny]) == 0
    seeds = [json.loads((tmp_path / f"seed-{n}" / "run.json").read_text()) for n in (1, 2)]
    assert [s["recipe"]["train"]["seed"] for s in seeds] == [1, 2]


def test_own_data_from_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    lines = ["id,time,x,label"]
    for i in range(60):
        label, n = ("up", "down")[i % 2], int(rng.integers(5, 9))
        lines += [f"{i},{t},{(1 if i % 2 else -1) * t + rng.normal():.3f},{label}" for t in range(n)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    out = tmp_path / "run"
    args = ["train", "custom", "--data", f"path={path}", "--out", str(out), *TINY, "--train.batch-size", "8"]
    assert main(args) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), "--json"]) == 0
    assert _json(capsys)["n"] >= 8


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fly"], "unknown verb 'fly': expected one of train"),
        (["train"], "expected a task or a recipe (.toml) first"),
        (["train", "nonsense"], "no recipe 'nonsense'"),
        (["train", "custom"], "expected the option path"),
        (["train", "custom", "--data", "path"], "expected key=value, got 'path'"),
        (["train", "custom", "--data", "path=missing.csv"], "missing.csv"),
        (["train", "custom", "--data", "path=2024"], "custom: expected path to be text, got 2024"),
        (
            ["train", "custom", "--data", "path=a.csv", "seed=abc"],
            "expected seed to be a whole number, got 'abc'",
        ),
        (
            ["train", "custom", "--data", "path=a.csv", "seed=²"],
            "expected seed to be a whole number, got '²'",
        ),
        (
            ["train", "custom", "--data", "path=a.csv", "seed=-1"],
            "a.csv: expected a seed from 0 to 2^32 - 1, got -1",
        ),
        (
            ["train", "smnist", "--data", "download=no"],
            "smnist: expected download to be true or false, got 'no'",
        ),
        (["evaluate", "nowhere"], "expected a run (a folder with run.json) or a zoo model"),
        (["quantize", "nowhere"], "expected a run (a folder with run.json) or a zoo model"),
        (["quantize", "smnist-float", "--distill", "1"], "expected --method qaft"),
        (
            ["evaluate", "smnist-float", "--backend", "native"],
            "expected an integer model (a .qs5 file), got the run",
        ),
        (
            ["evaluate", "smnist-float", "--data", "path=x.csv"],
            "expected an integer model (a .qs5 file), got the run",
        ),
        (["inspect", "smnist-float", "--examples", "0"], "expected --examples at least 1, got 0"),
        (["inspect", "smnist-float", "--examples", "-3"], "expected --examples at least 1, got -3"),
        (["bench", "mcu", "smnist-w8a8abar16", "--sequences", "0"], "expected --sequences at least 1, got 0"),
        (["list", "everything"], "takes no arguments"),
        (["inspect", "smnist-float", "--save"], "expected a run of your own with --save"),
        (["report", "nowhere"], "expected a run (a folder with run.json), a sweep's folder or a zoo model"),
        (["inspect", "nowhere.qs5"], "got neither"),
        *(
            (
                verb,
                "smnist-w4a8: expected a run (a folder with run.json) or a zoo model that is one, got an integer",
            )
            for verb in (["inspect", "smnist-w4a8"], ["report", "smnist-w4a8"], ["quantize", "smnist-w4a8"])
        ),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(
    argv: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_options_of_data_are_read_as_toml_reads_values() -> None:
    pairs = ("download=false", "verify=true", "seed=-1", "tau=0.5", "length=²", "path=a b.csv", 'label="3"')
    assert key_values((*pairs, "units=1,2", "day=2024-01-01", "note=")) == {
        "download": False, "verify": True, "seed": -1, "tau": 0.5, "length": "²", "path": "a b.csv", "label": "3",
        "units": ("1", "2"), "day": "2024-01-01", "note": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "words"),
    [(("--model.layerz", "2"), "--model.layers"), (("--model.P", "7"), "P/J must be even")],
)
def test_bad_options_exit_with_2(
    option: tuple[str, str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "digits", "--out", str(tmp_path / "run"), *option])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_bad_spec_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(trained), "--spec", "W9A9"]) == 2
    assert "unknown spec 'W9A9'" in capsys.readouterr().err


def test_quantizing_a_quantized_run_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", str(trained), "--out", str(tmp_path / "a")]) == 0
    assert main(["quantize", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 2
    assert "expected a float run" in capsys.readouterr().err


def test_damaged_run_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "run.json").write_bytes((trained / "run.json").read_bytes())
    (folder / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:200])
    assert main(["evaluate", str(folder)]) == 2
    assert "expected a qs5 model (safetensors)" in capsys.readouterr().err


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for word in ("digits", "smnist", "custom", "W8A8Abar16", "W2A8"):
        assert word in shown


def test_help_of_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "quantize" in capsys.readouterr().out
    for argv in (["train", "digits", "--help"], ["quantize", "x", "--help"], ["demo", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 0


def test_malloc_is_tuned_by_the_command_line_and_can_be_left_alone(run_python) -> None:
    code = "from qs5.cli.malloc import tune_malloc; import sys; print(tune_malloc(), 'jax' in sys.modules)"
    assert "True False" in str(run_python(code))


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no transparent huge pages here"
)
def test_big_blocks_are_in_memory_marked_for_huge_pages(run_python) -> None:
    code = (
        "import ctypes; from pathlib import Path; from qs5.cli.malloc import tune_malloc\n"
        "assert tune_malloc()\n"
        "malloc = ctypes.CDLL('libc.so.6').malloc\n"
        "malloc.restype, malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)\n"
        "at, flags = malloc(300 << 20) + (200 << 20), None\n"
        "for line in Path('/proc/self/smaps').read_text().splitlines():\n"
        "    head = line.split()[0]\n"
        "    if '-' in head: low, high = (int(v, 16) for v in head.split('-')); here = low <= at < high\n"
        "    elif here and head == 'VmFlags:': flags = line.split()[1:]\n"
        "print('hg' in flags)"
    )
    assert run_python(code).strip() == "True"


def test_malloc_opt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from qs5.cli.malloc import tune_malloc

    monkeypatch.setenv("QS5_MALLOC", "default")
    assert tune_malloc() is False


def test_tensorboard_files_are_written_where_asked(tmp_path: Path) -> None:
    assert main(["train", "digits", "--out", str(tmp_path / "run"), "--tensorboard", *TINY]) == 0
    events = list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 1 and b"train_loss" in events[0].read_bytes()


def test_a_row_of_the_bar_counts_the_steps_of_all_epochs() -> None:
    with common.progress_bar() as bar:
        step = common.step_row(bar, "training", epochs=3)
        step(StepReport(epoch=2, step=4, steps=10, loss=0.51239))
        (row,) = bar.tasks
    assert (row.description, row.completed, row.total, row.fields["note"]) == (
        "training",
        14,
        30,
        "loss 0.5124",
    )
