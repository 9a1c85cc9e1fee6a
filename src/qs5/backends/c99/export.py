"""`export`: a model as a folder of C."""

import re
from dataclasses import dataclass
from pathlib import Path

from qs5.backends.c99.header import header
from qs5.backends.c99.plan import plan_of
from qs5.backends.c99.programs import Golden, Program, main_c, makefile, selftest_c
from qs5.backends.c99.source import source
from qs5.backends.c99.text import KEYWORDS, Names
from qs5.errors import UserError
from qs5.files import write_beside
from qs5.integer.checks import check
from qs5.integer.file import content_hash
from qs5.integer.model import IntegerModel


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The model itself."""

    folder: Path
    source: Path
    header: Path


@dataclass(frozen=True, kw_only=True)
class Export(Sources):
    """What was written."""

    main: Path
    selftest: Path
    makefile: Path


def export(
    model: IntegerModel, folder: Path, *, golden: Golden, name: str = "model", prefix: str = "qs5"
) -> Export:
    """Writes <name>.c, <name>.h, main.c, selftest.c and Makefile; each file is whole or not there.

    name: of the files. prefix: of everything that the header declares; two models in one program need two.
    golden: at least one sequence with the reference's answer, for the self-test.
    Raises UserError for a name or prefix that C cannot have, IntegerModelError for a model that breaks a rule.
    """
    if not golden.sequences or any(len(s) == 0 for s in golden.sequences):
        raise ValueError("expected golden sequences of at least one step")
    sources = write_sources(model, folder, name=name, prefix=prefix)
    program = Program(model=model, name=name, prefix=prefix)
    files = Export(
        folder=folder,
        source=sources.source,
        header=sources.header,
        main=folder / "main.c",
        selftest=folder / "selftest.c",
        makefile=folder / "Makefile",
    )
    write_beside(files.main, main_c(program).encode())
    write_beside(files.selftest, selftest_c(program, golden).encode())
    write_beside(files.makefile, makefile(name).encode())
    return files


def write_sources(model: IntegerModel, folder: Path, *, name: str, prefix: str) -> Sources:
    """Writes <name>.c and <name>.h alone."""
    _require_identifier("name", name)
    _require_identifier("prefix", prefix)
    check(model)
    names, plan = Names(prefix), plan_of(model)
    files = Sources(folder=folder, source=folder / f"{name}.c", header=folder / f"{name}.h")
    h_text = header(plan, name=name, prefix=prefix, digest=content_hash(model), names=names)
    write_beside(files.header, h_text.encode())
    write_beside(files.source, source(plan, name=name, prefix=prefix, names=names).encode())
    return files


def _require_identifier(what: str, text: str) -> None:
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", text)
    if not plain or text in KEYWORDS or text in ("main", "selftest", "all", "test", "clean"):
        raise UserError(
            f"expected a {what} of letters, digits and underscores that C can have, got {text[:60]!r}"
        )
