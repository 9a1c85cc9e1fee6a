"""What a search has measured: append-only files, so that nothing is measured twice and a killed search goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qs5.errors import UserError
from qs5.files import append_jsonl, read_jsonl, write_beside


class Journal:
    """Values by key, one JSON line each; a last line cut off by a kill is left out. Raises UserError for any other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in read_jsonl(path) if "key" in row}

    def value(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a key; made, and written down at once, where there is none."""
        if key not in self.rows:
            row = {"key": key, **make()}
            append_jsonl(self.path, row)
            self.rows[key] = row
        return self.rows[key]


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Make `folder` the folder of a search, or go on with it. Raises UserError where it belongs to another one."""
    path = folder / "search.json"
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"{folder}: expected an empty folder or one of a search, got other files; take another --out"
            )
        write_beside(path, (json.dumps(identity, indent=1) + "\n").encode())
        return
    try:
        found = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: expected the settings of a search, got {error}; take another --out"
        ) from error
    differing = sorted(k for k in {*found, *identity} if found.get(k) != identity.get(k))
    if differing:
        raise UserError(
            f"{folder} holds a search with other {', '.join(differing)}; take another --out, or remove it"
        )
