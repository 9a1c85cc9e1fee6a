"""Files that are written whole or not at all, and files of records that grow by a line."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qs5.errors import UserError


def write_beside(path: Path, data: bytes) -> None:
    """Write to a temporary neighbour, then rename over `path`: whole, or not at all.

    Raises OSError that names `path`, or the folder that cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


# -- JSONL -------------------------------------------------------------------------------------------------------
# A process may be killed while it adds a line, or a reader come at that moment. What is left is the beginning of a
# row, which is never a JSON object itself: so a last line without an end counts if it is one, and else does not.


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, a JSON object a line; none where there is no file. A last line cut off is left out.

    Raises UserError for any other line that is no JSON object.
    """
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    if _is_row(last):
        lines.append(last)
    return [_row(line, source=f"{path}, line {n}") for n, line in enumerate(lines, start=1) if line.strip()]


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row, in the place of a last line cut off, if there is one. Makes file and folder where there are none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(row, sort_keys=True).encode() + b"\n"
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        end = content.rfind(b"\n") + 1
        if _is_row(content[end:]):
            text = b"\n" + text
        else:
            file.truncate(end)
        file.write(text)


def _is_row(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _row(line: bytes, *, source: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(
            f"{source}: expected one record of JSON a line, got {error}; mend the file"
        ) from error
    if not isinstance(row, dict):
        shown = line[:40].decode(errors="replace")
        raise UserError(f"{source}: expected a record, got {shown!r}; mend the file")
    return row
