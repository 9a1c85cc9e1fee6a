"""`RunRecord`: one JSON line for every result, with everything needed to make it again."""

import dataclasses
import functools
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qs5.files import append_jsonl, read_jsonl, write_beside
from qs5.machine import processors


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A measured result: what was run, on which data, how it was selected, what came out."""

    task: str
    data: str
    """SHA-256 of the task's data."""
    method: str
    """fp, ptq, qat or qaft."""
    spec: str
    seed: int
    split: str
    metric: str
    value: float
    loss: float
    n: int
    selection: str
    seconds: float
    epoch: int | None = None
    train_loss: float | None = None
    command: str = field(default_factory=lambda: command_line())
    commit: str = field(default_factory=lambda: commit())
    machine: str = field(default_factory=lambda: machine())
    peak_mib: int | None = field(default_factory=lambda: peak_mib())
    """Largest resident memory of the process so far, MiB; None where the system does not tell."""
    time: str = field(default_factory=lambda: now())
    extra: dict[str, Any] = field(default_factory=dict)


def append(path: Path, record: RunRecord) -> None:
    """Add one line to a JSONL file, in the place of one that a kill cut off."""
    append_jsonl(path, dataclasses.asdict(record))


def read(path: Path) -> list[dict[str, Any]]:
    """All records of a JSONL file, oldest first; none if there is no file. A last line cut off is left out.

    Raises UserError for any other line that is no JSON.
    """
    return read_jsonl(path)


def drop_epochs(path: Path, *, first: int) -> None:
    """Remove the records of epochs from `first` on: a resumed run does again what no checkpoint holds."""
    records = read(path)
    kept = [r for r in records if r["epoch"] is None or r["epoch"] < first]
    if len(kept) < len(records):
        write_beside(path, "".join(json.dumps(r, sort_keys=True) + "\n" for r in kept).encode())


def origin() -> dict[str, str]:
    """What a record says of how it came to be, for what is made without one."""
    return {"command": command_line(), "commit": commit(), "machine": machine(), "time": now()}


def now() -> str:
    """The time of day, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def command_line() -> str:
    """How this process was called: `python -m MODULE` and its arguments, or the program's name without its folder."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = Path(sys.argv[0]).name if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"
    return " ".join([name, *sys.argv[1:]])


@functools.cache
def commit() -> str:
    """The commit of the working tree the package runs from; the version if installed.

    `-dirty` is appended where a tracked file differs from it, but for results/: what a run appends there is no code.

    Asked once a process: a long run keeps the code it started with, whatever is committed meanwhile.
    """
    try:
        # An installed package may lie inside the checkout of something else, which does not track it.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        found = _git("describe", "--always", "--abbrev=12", "--exclude=*")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")
        return f"{found}-dirty" if changed else found
    except (OSError, subprocess.SubprocessError):
        return _version()


def _version() -> str:
    try:
        return f"version {importlib.metadata.version('qs5')}"
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=Path(__file__).resolve().parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout.strip()


def machine() -> str:
    """Processor and core count, without a host name."""
    return f"{_processor()}, {processors()} cores, Python {platform.python_version()}"


def peak_mib() -> int | None:
    """Largest resident set of this process so far, MiB."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
