"""Lowering, running and judging integer models from the command line."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import originals
from tests.integer.small import classifier, dense, regression, signal, tokens
from tests.support import small_model

from qs5 import integer, tasks
from qs5.backends import reference
from qs5.cli import bench, evaluate, main, run as run_verb
from qs5.cli.golden import noise
from qs5.cli.lower import lowered_run
from qs5.errors import UserError
from qs5.integer import whole
from qs5.integer.file import save
from qs5.integer.ops import Embedding
from qs5.quantization.spec import spec_of
from qs5.training import methods, run
from qs5.training.recipe import load_recipe
from qs5.training.run import RunInfo

CSV_ROWS = ("id,time,x,y,label", "a,0,0.5,1,up", "a,1,0.75,2,up", "b,0,-1.5,0,down")
JAX_FREE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "equinox"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from qs5.cli import main
sys.exit(main(["run", sys.argv[1], sys.argv[2]]))
"""


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An integer model of the digits task, of a float run that nobody trained."""
    folder = tmp_path_factory.mktemp("lowered")
    model = small_model(d_in=1, d_out=10, layers=1, H=4, P=4)
    recipe, task = dataclasses.replace(load_recipe("digits"), model=model.config), tasks.load("digits")
    run.write_run(folder / "float", run.info_of(run.complete(recipe, task), task), model)
    assert main(["quantize", str(folder / "float"), "--out", str(folder / "ptq")]) == 0
    assert main(["lower", str(folder / "ptq"), "-o", str(folder / "model.qs5")]) == 0
    return folder / "model.qs5"


@pytest.fixture(scope="module")
def raw() -> np.ndarray:
    """Three sequences of digits."""
    from qs5 import tasks

    return tasks.load("digits").test.x[:3]


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.strip().splitlines()


def test_lower_prints_every_signal_and_says_how_small_the_file_is(
    lowered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["lower", str(lowered.parent / "ptq"), "--out", str(tmp_path / "m.qs5")]) == 0
    shown = capsys.readouterr().out
    model = integer.load(lowered)
    assert all(name in shown for name in model.signals)
    assert integer.content_hash(model) in shown and f"{(tmp_path / 'm.qs5').stat().st_size} bytes" in shown
    assert model.description.classes == tuple("0123456789") and model.description.task == "digits"


def test_a_folder_in_the_place_of_the_file_is_named(
    lowered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["lower", str(lowered.parent / "ptq"), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path}: expected a file, got a folder; name a file\n" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_float_run_cannot_be_lowered(
    lowered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.qs5"
    assert main(["lower", str(lowered.parent / "float"), "--out", str(out)]) == 2
    assert "expected a quantized run, got a float one" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("verb", ["inspect", "report", "quantize", "search", "lower"])
def test_verbs_for_runs_say_what_an_integer_model_is_and_what_takes_it(
    verb: str, lowered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    options = {"report": ["-o", str(tmp_path / "page.html")], "search": ["--budget", "bytes=20k"]}.get(
        verb, []
    )
    assert main([verb, str(lowered), *options]) == 2
    error = capsys.readouterr().err
    assert f"{lowered}: expected a run (a folder with run.json)" in error and "got an integer model" in error
    assert f"qs5 evaluate {lowered} judges it" in error and error.count("\n") == 1


def test_a_folder_of_an_integer_model_is_one_unless_runs_are_in_it(
    lowered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    (tmp_path / "model.qs5").write_bytes(lowered.read_bytes())
    for verb in ("inspect", "report"):
        assert main([verb, str(tmp_path)]) == 2
        assert f"qs5 evaluate {tmp_path / 'model.qs5'} judges it" in capsys.readouterr().err
    assert main(["report", str(lowered.parent), "-o", str(tmp_path / "page.html")]) == 0
    assert "2 runs" in capsys.readouterr().out


def test_every_reason_against_lowering_is_given_at_once(
    lowered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(lowered.parent / "float")
    assert main(["quantize", source, "--spec", "b=12,c=float", "--out", str(tmp_path / "wide")]) == 0
    capsys.readouterr()
    assert main(["lower", str(tmp_path / "wide")]) == 2
    error = capsys.readouterr().err
    assert "Bu.weight has 12 bits" in error and "y.C is float" in error
    assert not (tmp_path / "wide" / "model.qs5").exists()


def test_run_on_npz_gives_the_references_logits(
    lowered: Path, raw: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", x=raw, y=np.zeros(len(raw), int))
    capsys.readouterr()
    assert main(["run", str(lowered), str(tmp_path / "x.npz"), "--json", "--backend", "reference"]) == 0
    out, err = capsys.readouterr()
    expected = reference.logits(integer.load(lowered), raw)
    rows = [json.loads(line) for line in out.strip().splitlines()]
    assert [row["logits"] for row in rows] == expected.tolist()
    assert [row["class"] for row in rows] == [str(i) for i in expected.argmax(axis=-1)]
    right = int(np.sum(expected.argmax(axis=-1) == 0))
    assert f"accuracy {100 * right / len(raw):.2f} % of {len(raw)}" in err


def test_standard_input_and_streaming_agree_with_the_file(
    lowered: Path, raw: np.ndarray, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n\n".join("\n".join(" ".join(str(v) for v in step) for step in x) for x in raw) + "\n"
    expected = reference.logits(integer.load(lowered), raw).tolist()
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["run", str(lowered), "-", "--json", "--backend", "reference"]) == 0
    assert [json.loads(line)["logits"] for line in _lines(capsys)] == expected
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["run", str(lowered), "-", "--stream", "--json", "--backend", "reference"]) == 0
    steps = [json.loads(line)["logits"] for line in _lines(capsys)]
    L = raw.shape[1]
    assert len(steps) == len(raw) * L and steps[L - 1 :: L] == expected


def test_evaluate_gives_the_accuracy_of_the_integers(
    lowered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qs5 import tasks

    split = tasks.load("digits").test
    expected = np.mean(reference.logits(integer.load(lowered), split.x).argmax(axis=-1) == split.y)
    capsys.readouterr()
    assert main(["evaluate", str(lowered), "--backend", "reference", "--json"]) == 0
    result = json.loads(_lines(capsys)[-1])
    assert result["accuracy"] == expected and result["n"] == len(split) and result["backend"] == "reference"


def test_running_needs_no_jax(lowered: Path, raw: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=raw)
    done = subprocess.run(
        [sys.executable, "-c", JAX_FREE, str(lowered), str(tmp_path / "x.npz")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(raw)


def test_csv_columns_are_found_by_the_names_of_the_training(tmp_path: Path) -> None:
    described = _described(classifier(), channels=("y", "x"))
    (tmp_path / "d.csv").write_text("\n".join(CSV_ROWS) + "\n")
    data = run_verb._read(str(tmp_path / "d.csv"), described)
    assert data.labels == ["up", "down"] and data.lengths is not None and data.lengths.tolist() == [2, 1]
    assert data.x[0].tolist() == [[1.0, 0.5], [2.0, 0.75]]
    unlabelled = "\n".join(line.rsplit(",", 1)[0] for line in CSV_ROWS) + "\n"
    (tmp_path / "u.csv").write_text(unlabelled)
    assert run_verb._read(str(tmp_path / "u.csv"), described).labels is None


def _described(model: integer.IntegerModel, **changes: object) -> integer.IntegerModel:
    description = dataclasses.replace(model.description, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(model, description=description)


def test_codes_are_made_of_measurements_where_the_model_says_how() -> None:
    bare = regression([dense("input", signal("y"), [[1]])], signal("input"))
    described = _described(bare, scale=(2.0,), offset=(0.5,))
    x = np.array([[[3.0], [-2.0], [100.0]]])
    assert whole.raw_of(described, x).ravel().tolist() == [7, -3, 127]
    assert whole.raw_of(bare, x).ravel().tolist() == [3, -2, 100]
    with pytest.raises(UserError, match=r"expected whole numbers \(codes\), got others such as 1.5"):
        whole.raw_of(bare, np.array([[[1.5]]]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\nx\n", "line 2: expected numbers"),
        ("1\n2 3\n", "as many numbers in every step, got 1 to 2"),
        ("1\nnan\n", "line 2: expected finite numbers"),
        ("1.5\n", "expected whole numbers (uint8)"),
        ("300\n", "expected raw samples of 0 to 255"),
        ("", "expected a step a line, got nothing"),
        ("1 2\n", "expected 1 input channels, got 2"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    text: str,
    words: str,
    lowered: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["run", str(lowered), "-", "--backend", "reference"]) == 2
    out, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1 and not out


X = np.zeros((2, 64, 1), np.uint8)


def _npz(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize("mode", [(), ("--raw",), ("--stream",)], ids=["whole", "raw", "stream"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_npz(x=X)[:-40], "expected a complete .npz file, got a damaged one"),
        (_npy(X), "expected a .npz archive, got one array (.npy)"),
        (_npz(x=X, lengths=np.array([64.0, 3.0])), "expected lengths of shape (2,) and an integer type"),
        (_npz(x=X, lengths=np.array([[64], [3]])), "expected lengths of shape (2,) and an integer type"),
        (
            _npz(x=X, lengths=np.array([64, 65])),
            "expected lengths between 1 and 64 (the steps in x), got 64 to 65",
        ),
        (_npz(x=np.zeros((2, 0, 1))), "expected numbers x (N, L, d), got (2, 0, 1)"),
        (_npz(y=X), "expected an array x (N, L, d), got none"),
    ],
)
def test_bad_npz_gets_one_line_and_exit_code_2(
    content: bytes,
    words: str,
    mode: tuple[str, ...],
    lowered: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["run", str(lowered), str(path), "--backend", "reference", *mode]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"qs5: {path}: ") and words in err and err.count("\n") == 1 and not out


def test_padding_may_hold_anything(lowered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.full((2, 64, 1), 3.0)
    answers = []
    for padding in (0.0, np.nan):
        x[1, 5:] = padding
        np.savez(tmp_path / "x.npz", x=x, lengths=np.array([64, 5]), other=np.array([{}], object))
        capsys.readouterr()
        assert main(["run", str(lowered), str(tmp_path / "x.npz"), "--backend", "reference"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] and answers[0].count("\n") == 2


@pytest.mark.parametrize("mode", [(), ("--stream",)], ids=["whole", "stream"])
def test_standard_input_that_is_no_text_is_refused(
    mode: tuple[str, ...],
    lowered: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1\n\xff\xfe\n"), encoding="utf-8"))
    assert main(["run", str(lowered), "-", "--backend", "reference", *mode]) == 2
    err = capsys.readouterr().err
    assert "standard input: expected text in UTF-8, got" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "nowhere.qs5", "-"], "expected a .qs5 integer model"),
        (["evaluate", "nowhere.qs5"], "expected a .qs5 integer model"),
        (["export", "c", "nowhere.qs5", "-o", "out"], "expected a .qs5 integer model"),
        (["lower", "nowhere"], "expected a run (a folder with run.json)"),
    ],
)
def test_mistakes_with_integer_models(
    argv: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_noise_for_bench_is_of_tokens_that_the_embedding_has():
    sequences = bench._sequences(tokens(), 2, None)  # max_length is 50, less than the 128 steps
    assert [s.shape for s in sequences] == [(50, 1), (50, 1)]
    assert {int(v) for s in sequences for v in s.ravel()} == {0, 1, 2, 3, 4}
    assert [s.shape for s in bench._sequences(classifier(), 1, None)] == [(128, 2)]
    assert [len(s) for s in noise(tokens())] == [1, 2, 33]


def test_a_run_on_tokens_is_lowered_with_a_table_for_its_encoder(tmp_path: Path):
    originals.listops_files(tmp_path)
    task = tasks.load("listops", data_dir=str(tmp_path), length=8)
    model = small_model(d_in=task.d_in, d_out=10, layers=1, bidirectional=True, padding="masked")
    parent = RunInfo(recipe=load_recipe("listops-small"))
    spec = spec_of("W8A8Abar16,rounding=nearest")
    ptq = methods.ptq(model, task, spec, parent=parent, name="float", out=tmp_path / "run")
    lowered = lowered_run(ptq.model, ptq.info, task, "run", max_length=8)
    assert isinstance(lowered.ops[0], Embedding) and lowered.ops[0].tokens == task.d_in == 20
    assert (lowered.input.source, lowered.padding, lowered.raw_range) == ("token", "masked", (0, 19))
    assert lowered.description.channels is None
    assert lowered.description.provenance["options"] == "length=512"  # of the recipe
    codes = reference.logits(lowered, task.test.x.astype(np.int64), task.test.lengths)
    assert codes.shape == (len(task.test), 10) and len(np.unique(codes, axis=0)) > 1


def test_an_integer_model_is_judged_on_the_data_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = classifier()
    provenance = {"options": "length=512 columns=a,b padded=true"}
    description = dataclasses.replace(model.description, task="listops", provenance=provenance)
    save(tmp_path / "model.qs5", dataclasses.replace(model, description=description))
    asked: list[dict[str, Any]] = []

    def load_part(name: str, options: dict[str, Any], *_: object) -> None:
        asked.append({"task": name, **options})
        raise UserError("enough")

    monkeypatch.setattr(evaluate.common, "load_part", load_part)
    for words in ([], ["--data", "length=64"]):
        assert main(["evaluate", str(tmp_path / "model.qs5"), *words]) == 2
    own = {"task": "listops", "length": 512, "columns": ("a", "b"), "padded": True}
    assert asked == [own, own | {"length": 64}]
