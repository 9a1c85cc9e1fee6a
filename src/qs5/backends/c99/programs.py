"""The programs beside a model: main.c (stdin to stdout), selftest.c (golden vectors), and the Makefile.

Their text is in `templates/`, C as it will be but for holes: @name or @{name}, and @@ for an @ itself. Each program is
one beginning and one `main`, chosen by whether a model streams or wants whole sequences (`stream`, `run`), and whether
it answers once a sequence or every step (`class`, `outputs`).
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qs5.backends.c99.constants import C_TYPES, definition
from qs5.backends.c99.header import answer_type, raw_type
from qs5.integer.model import IntegerModel

TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True, kw_only=True, eq=False)
class Golden:
    """What a model must answer, from the reference. sequences: raw (L, D) each, L at least 1. answers: the logits
    (classes,) of each, or its outputs (L, outputs)."""

    sequences: Sequence[np.ndarray]
    answers: Sequence[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Program:
    """What the programs are written for. name: of the files. prefix: of what the header declares."""

    model: IntegerModel
    name: str
    prefix: str

    @property
    def kind(self) -> str:
        """Which `main` fits: stream_class, stream_outputs, run_class or run_outputs."""
        how = "run" if self.model.bidirectional else "stream"
        return f"{how}_{self.answers}"

    @property
    def answers(self) -> str:
        """class: once a sequence. outputs: every step."""
        return "outputs" if self.model.task == "regression" else "class"

    @property
    def holes(self) -> dict[str, str]:
        """What every template may name. P: the prefix of macros. raw, answer: C types."""
        return {
            "name": self.name,
            "prefix": self.prefix,
            "P": self.prefix.upper(),
            "raw": raw_type(self.model),
            "answer": answer_type(self.model),
        }


class _Text(string.Template):
    """A template whose holes begin with a character that C does not use."""

    delimiter = "@"


def _fill(template: str, holes: dict[str, str]) -> str:
    """The text of a template. Raises KeyError for a hole that nothing fills."""
    return _Text((TEMPLATES / template).read_text(encoding="utf-8")).substitute(holes)


def makefile(name: str) -> str:
    """`make` builds ./<name>, `make test` runs the self-test."""
    return _fill("Makefile", {"name": name})


def main_c(p: Program) -> str:
    """The text of main.c."""
    holes = p.holes | _reading(p.model) | _printing(p)
    parts = ("main_reader.c", f"main_print_{p.answers}.c", f"main_{p.kind}.c")
    return "\n".join(_fill(part, holes) for part in parts)


def selftest_c(p: Program, golden: Golden) -> str:
    """The text of selftest.c: returns 0 where every answer is the expected one."""
    holes = p.holes | _vectors(p, golden)
    return "\n".join(_fill(part, holes) for part in ("selftest_vectors.c", f"selftest_{p.kind}.c"))


def _reading(model: IntegerModel) -> dict[str, str]:
    """How many samples a step has, the range of their type as C, and what happens to a number beyond it."""
    low, high = {
        "uint8_t": ("0", "255"),
        "int16_t": ("-32768", "32767"),
        "int32_t": ("-2147483647L - 1L", "2147483647L"),
    }[raw_type(model)]
    saturate = "value = value < LOW ? LOW : HIGH; /* as the model itself does it */"
    refuse = 'fail("a sample is out of range");'
    saturates = model.input.source in ("codes", "token")
    return {
        "channels": str(model.input.out.channels),
        "low": low,
        "high": high,
        "beyond": saturate if saturates else refuse,
    }


def _printing(p: Program) -> dict[str, str]:
    """What is printed: as `qs5 run` prints it, so that the two can be compared as they are."""
    once, always = "one line a sequence: the class and the logits", "one line a step: the outputs"
    named, number = f'printf("%s", {p.prefix}_classes[label]);', 'printf("%d", label);'
    return {
        "printed": always if p.answers == "outputs" else once,
        "print_label": named if p.model.description.classes else number,
    }


def _vectors(p: Program, golden: Golden) -> dict[str, str]:
    """The golden sequences one after the other, and what is expected of each, or of each of their steps."""
    lengths = np.array([len(s) for s in golden.sequences], np.uint32)
    samples = np.concatenate(list(golden.sequences))
    answers = np.concatenate([np.atleast_2d(a) for a in golden.answers])
    return {
        "count": "OUTPUTS" if p.answers == "outputs" else "CLASSES",
        "sequences": str(len(lengths)),
        "longest": str(int(np.max(lengths))),
        "lengths": definition("lengths", lengths),
        "samples": _two_axes("raw", samples, raw_type(p.model)),
        "expected": _two_axes("expected", answers, answer_type(p.model)),
    }


def _two_axes(name: str, values: np.ndarray, kind: str) -> str:
    """An array (rows, columns) of a C type; values beyond the type saturate, as they do in the model."""
    dtype = next(dtype for dtype, text in C_TYPES.items() if text == kind)
    limits = np.iinfo(dtype)
    rows = np.clip(values, limits.min, limits.max).tolist()
    lines = "\n".join("    {" + ", ".join(map(_number, row)) + "}," for row in rows)
    return f"static const {kind} {name}[{len(rows)}][{values.shape[1]}] = {{\n{lines}\n}};"


def _number(value: int) -> str:
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)
