"""Fetching of one public file into the user's cache directory: with resume, progress and checksum."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qs5.tasks.errors import DataError

TIMEOUT = 30.0  # seconds without an answer before the download is given up
CHUNK = 1 << 20
SHOWN_FROM = 8 << 20  # bytes; a smaller file is there before its progress can be read


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/qs5`, or `~/.cache/qs5`. Not created here."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qs5"


def fetch(url: str, path: Path, *, md5: str) -> Path:
    """Download `url` to `path` unless it is there already; returns `path`.

    What has come is kept in `<path>.part`, and a download that broke off goes on from there. The file is renamed
    to `path` once its MD5 is right, so `path` never holds a partial or a wrong file. Raises DataError with the
    reason when any of this fails.
    """
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _get(url, part)
        _check(part, url=url, md5=md5)
        os.replace(part, path)
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"expected a writable cache, got {error}; set XDG_CACHE_HOME to a directory you can write to"
        ) from error
    return path


def _check(part: Path, *, url: str, md5: str) -> None:
    """Remove a file with another MD5, and raise DataError."""
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found == md5:
        return
    size = part.stat().st_size
    part.unlink()
    raise DataError(
        f"{url}: expected a file with MD5 {md5}, got {size} bytes with MD5 {found}; "
        "the server sent something else, try again or use another source"
    )


def _get(url: str, part: Path) -> None:
    """Download into `part`, from its end on if it holds a beginning already."""
    have = part.stat().st_size if part.is_file() else 0
    with _network(url):
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        response = _open(request)
    if response is None:  # the server has nothing after what is there: that was all of it
        return
    with response:
        start = have if _continues(response, have) else 0
        remaining = response.headers.get("Content-Length")
        total = None if remaining is None else start + int(remaining)
        with part.open("r+b" if start else "wb") as file, _progress(part.stem, total) as report:
            file.seek(start)
            done = start
            while chunk := _read(response, url):
                file.write(chunk)
                done += len(chunk)
                report(done)
            file.truncate()
    if total is not None and done < total:
        raise DataError(
            f"{url}: expected {total} bytes, got {done}; the connection broke, try again (it goes on from there)"
        )


def _open(request: urllib.request.Request) -> Any:
    """The response; None where the server says that nothing follows the part that is there (416)."""
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and request.has_header("Range"):
            error.close()
            return None
        raise


def _continues(response: Any, have: int) -> bool:
    """Whether the answer starts where the part ends; a server may ignore the wish and send everything."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    return response.status == http.client.PARTIAL_CONTENT and found is not None and int(found[1]) == have


def _read(response: Any, url: str) -> bytes:
    with _network(url):
        try:
            return response.read(CHUNK)
        except http.client.IncompleteRead as error:
            return error.partial


@contextlib.contextmanager
def _network(url: str) -> Iterator[None]:
    """Whatever goes wrong with connection or address becomes a DataError."""
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(
            f"{url}: expected the file, got an error ({reason}); check connection and address"
        ) from error


@contextlib.contextmanager
def _progress(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, for files worth one; call it with the bytes done."""
    if not sys.stderr.isatty() or (total or 0) < SHOWN_FROM:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(f"downloading {name}", total=total)
        yield lambda done: bar.update(row, completed=done)
