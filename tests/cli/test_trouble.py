"""What the system refuses, and interruptions, are told in one line as well."""

import importlib
import os
from pathlib import Path

import pytest

from qs5.cli import GOES_ON, VERBS, main

TINY = ("--model.layers", "1", "--model.H", "4", "--model.P", "4", "--train.warmup-epochs", "0")
TAKEN = "expected a folder, got a file of this name; take another path, or remove the file"
FOLDER = "expected a file, got a folder; name a file"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("qs5: ") and "Traceback" not in out
    return err


@pytest.mark.parametrize(
    ("argv", "name", "words"),
    [
        (["report", "smnist-float", "-o", "{folder}"], "{folder}", FOLDER),
        (["report", "smnist-float", "-o", "{file}/page.html"], "{file}", TAKEN),
        (["reproduce", "table1", "-o", "{folder}"], "{folder}", FOLDER),
        (["export", "c", "smnist-w8a8abar16", "-o", "{file}"], "{file}", TAKEN),
        (["export", "onnx", "smnist-w8a8abar16", "-o", "{folder}"], "{folder}", FOLDER),
        pytest.param(["train", "digits", "--out", "{file}", *TINY], "{file}", TAKEN, marks=pytest.mark.slow),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_place_that_cannot_be_written_is_named(
    argv: list[str],
    name: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    places = {"folder": str(tmp_path / "folder"), "file": str(tmp_path / "file")}
    Path(places["folder"]).mkdir()
    Path(places["file"]).write_text("mine")
    assert main([word.format(**places) for word in argv]) == 2
    assert one_line(capsys).endswith(f"{name.format(**places)}: {words}\n")
    assert Path(places["file"]).read_text() == "mine" and not any(Path(places["folder"]).iterdir())


@pytest.mark.parametrize("folder", [".", "missing"])
def test_a_table_of_nothing_is_an_error(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["reproduce", "table1", "--results", str(tmp_path / folder)]) == 2
    assert "expected a folder of records (.jsonl files), found none in" in one_line(capsys)


def raising(verb: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: list[str]) -> int:
        raise error

    monkeypatch.setattr(importlib.import_module(f"qs5.cli.{verb}"), "run", run)


@pytest.mark.parametrize(
    ("code", "name", "words"),
    [
        (2, "model.so", "model.so: expected a file or program of this name, got none"),
        (13, "/kept/x", "/kept/x: no permission to read or write here; take another path, or change who may"),
        (20, "a/b", "a/b: expected folders above it, got a file among them"),
        (28, "page.html", "page.html: No space left on device; mend this, or take another path"),
        (28, None, "a file: No space left on device; mend this"),
    ],
)
def test_every_trouble_with_a_file_is_one_line_and_exit_code_2(
    code: int,
    name: str | None,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    raising("list", OSError(code, os.strerror(code), name), monkeypatch)
    assert main(["list"]) == 2
    assert one_line(capsys).startswith(f"qs5: {words}")


def test_an_error_without_a_number_says_what_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    raising("list", OSError("the tape is torn"), monkeypatch)
    assert main(["list"]) == 2
    assert "a file: the tape is torn; mend this" in one_line(capsys)


@pytest.mark.parametrize("verb", ["train", "search", "list", "report"])
def test_only_verbs_that_can_go_on_say_so_when_interrupted(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    raising(verb, KeyboardInterrupt(), monkeypatch)
    assert main([verb]) == 130
    assert ("the same command goes on" in one_line(capsys)) == (verb in ("train", "search"))
    assert set(GOES_ON) == {"train", "quantize", "sweep", "search"} <= set(VERBS)
