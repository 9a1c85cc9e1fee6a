"""Emitted C on the host: strict compilation, sanitizers, and what the programs print."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from qs5.backends.c99 import Export, export
from qs5.cli.golden import golden_of
from qs5.integer.model import IntegerModel

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiler() -> str:
    """The host's C compiler; skips the test where there is none."""
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.skip("expected a C compiler (cc) on the PATH")
    return found


def emit(model: IntegerModel, folder: Path, sequences: Sequence[np.ndarray]) -> Export:
    """A model as C with the reference's answers in its self-test."""
    return export(model, folder, golden=golden_of(model, sequences))


def compile_c(sources: Sequence[Path], program: Path, *flags: str) -> Path:
    """A program from strict C99. Fails the test with the compiler's words."""
    command = [compiler(), *STRICT, *flags, "-o", str(program), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def run_program(program: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """What a program prints for a text on its standard input, and how it ends."""
    return subprocess.run([str(program)], input=text, capture_output=True, text=True, timeout=120)


def assert_selftest_passes(files: Export, *flags: str) -> None:
    """Compile the self-test and run it."""
    done = run_program(compile_c([files.selftest, files.source], files.folder / "selftest", *flags))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok: ")
