"""The examples that write files leave whole ones, or none."""

import runpy
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qs5 import tasks


def script(monkeypatch: pytest.MonkeyPatch, path: Path, *words: object) -> Callable[[], None]:
    """The `main` of a script, which reads these words of a command line."""
    monkeypatch.setattr("sys.argv", [path.name, *map(str, words)])
    return runpy.run_path(str(path), run_name="example")["main"]


def write_words(folder: Path) -> None:
    """Two words of four recordings each."""
    for k, word in enumerate(("go", "stop")):
        (folder / word).mkdir(parents=True)
        for number in range(4):
            with wave.open(str(folder / word / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(np.full(640, 100 * k + number, "<i2").tobytes())


def test_a_csv_of_gestures_is_whole_or_not_there(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "mine.csv"
    main = script(monkeypatch, repository / "examples/make_sensor_csv.py", "--sequences", 12, "--out", out)
    drawn = main.__globals__["recording"]
    left = iter(range(5))

    def torn(gesture: str, rng: np.random.Generator) -> np.ndarray:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return drawn(gesture, rng)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(main.__globals__, "recording", torn)
        main()
    assert not any(tmp_path.iterdir())
    main()
    first, *rows = out.read_text().splitlines()
    assert first == "id,time,ax,ay,az,label" and {row.split(",")[0] for row in rows} == set(
        map(str, range(12))
    )


def test_archives_of_words_are_whole_or_not_there(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    source, out = tmp_path / "words", tmp_path / "out" / "words"
    write_words(source)
    out.parent.mkdir()
    example = repository / "examples/make_keyword_npz.py"
    main = script(monkeypatch, example, source, "--out", out, "--copies", 1)

    def torn(file: Any, **arrays: np.ndarray) -> None:
        if isinstance(file, str | Path):
            Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "savez", torn)
        main()
    assert not any(out.parent.iterdir())
    main()
    assert {p.name for p in out.parent.iterdir()} == {"words.npz", "words-test.npz"}
    task = tasks.load("custom", path=str(out.with_name("words.npz")))
    assert (len(task.train), len(task.validation), len(task.test)) == (8, 2, 2) and task.d_in == 32
