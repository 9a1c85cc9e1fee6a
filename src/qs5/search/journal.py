"""What a search has measured: append-only files, so that nothing is measured twice and a killed search goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qs5.errors import UserError
from qs5.files import write_beside


class Journal:
    """Values by key, one JSON line each; a line cut off by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
                self.rows[row["key"]] = row
            except (json.JSONDecodeError, KeyError, TypeError):
                self._drop_rest()
                break

    def _drop_rest(self) -> None:
        lines = [json.dumps(row, sort_keys=True) + "\n" for row in self.rows.values()]
        write_beside(self.path, "".join(lines).encode())

    def value(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of a key; made, and written down at once, where there is none."""
        if key not in self.rows:
            row = {"key": key, **make()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(row, sort_keys=True) + "\n")
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
