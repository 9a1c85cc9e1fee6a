"""Files that are whole or not there, and files of records that a kill may cut off at any byte."""

import json
import os
from pathlib import Path

import pytest

from qs5.errors import UserError
from qs5.files import append_jsonl, read_jsonl, write_beside

ROWS = [{"a": 1, "text": "one\nline { of } JSON"}, {"a": 2, "inside": {"b": [1.5, None]}}, {"a": 3}]


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()


def test_wherever_a_kill_cuts_the_last_line_reading_and_adding_go_on(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    whole = lines(ROWS[:2])
    for end in range(len(lines(ROWS[:1])), len(whole) + 1):
        path.write_bytes(whole[:end])
        kept = ROWS[: 2 if end >= len(whole) - 1 else 1]  # all but its newline is a row as well
        assert read_jsonl(path) == kept
        append_jsonl(path, ROWS[2])
        assert path.read_bytes() == lines([*kept, ROWS[2]])


def test_the_first_row_makes_the_file_and_its_folder(tmp_path: Path):
    path = tmp_path / "new" / "rows.jsonl"
    assert read_jsonl(path) == []
    append_jsonl(path, ROWS[0])
    assert path.read_bytes() == lines(ROWS[:1])


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (
            b'{"a": 1, "te\n',
            r"rows\.jsonl, line 3: expected one record of JSON a line, got .*; mend the file",
        ),
        (b"\xff\n", r"rows\.jsonl, line 3: expected one record of JSON a line"),
        (b"[1]\n", r"rows\.jsonl, line 3: expected a record, got '\[1\]'; mend the file"),
    ],
)
def test_a_damaged_line_that_no_kill_explains_is_named(damaged: bytes, message: str, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(ROWS[:1]) + b"\n" + damaged + lines(ROWS[1:]))
    with pytest.raises(UserError, match=message):
        read_jsonl(path)


def test_what_the_system_refuses_is_told_of_the_file_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(IsADirectoryError) as caught:
        write_beside(tmp_path, b"x")
    assert caught.value.filename == str(tmp_path) and "part" not in str(caught.value)

    def refuse(_: Path, data: bytes) -> int:
        raise OSError(28, os.strerror(28))  # a full disk names no file

    path = tmp_path / "file"
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OSError, match=r"No space left on device: .*file'") as full:
        write_beside(path, b"x")
    assert full.value.filename == str(path) and not any(tmp_path.iterdir())
