"""Fetching of one public file into the user's cache directory."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from qs5.tasks.errors import DataError

TIMEOUT = 30.0  # seconds without an answer before the download is given up


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/qs5`, or `~/.cache/qs5`. Not created here."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qs5"


def fetch(url: str, path: Path, *, md5: str) -> Path:
    """Download `url` to `path` unless it is there already; returns `path`.

    The MD5 is checked before anything is written, and the file is written beside its place and renamed, so
    `path` never holds a partial or a wrong file. Raises DataError with the reason when any of this fails.
    """
    if path.is_file():
        return path
    content = _get(url)
    found = hashlib.md5(content).hexdigest()
    if found != md5:
        raise DataError(
            f"{url}: expected a file with MD5 {md5}, got {len(content)} bytes with MD5 {found}; "
            "the server sent something else, try again or use another source"
        )
    try:
        _write_whole(path, content)
    except OSError as error:
        raise DataError(
            f"expected a writable cache, got {error}; set XDG_CACHE_HOME to a directory you can write to"
        ) from error
    return path


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return response.read()
    except http.client.IncompleteRead as error:
        raise DataError(
            f"{url}: expected {len(error.partial) + (error.expected or 0)} bytes, got {len(error.partial)}; "
            "the connection broke, try again"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(
            f"{url}: expected the file, got an error ({reason}); check connection and address"
        ) from error


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as file:
        temporary = Path(file.name)
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink()
        raise
