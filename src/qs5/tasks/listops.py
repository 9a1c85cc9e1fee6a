"""`listops`: nested operations on lists of digits, to be computed from their text (a task of the Long Range Arena).

    [MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]  ->  5

MAX, MIN; MED, the median, rounded down; SM, the sum modulo 10. Round brackets in a file show the parse as a binary
tree and are not read. Found as `basic_train.tsv`, `basic_val.tsv` and `basic_test.tsv` of the arena's release (folder
`listops-1000`): a header `Source<tab>Target`, then an expression and its value a line. `qs5 data make listops` writes
such files; a task from them is called `listops-qs5`.

Source: N. Nangia, S. Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", 2018; Y. Tay et al., "Long
Range Arena", 2021; tokens as lindermanlab/S5 `dataloaders/lra.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from qs5.tasks import places, tokens
from qs5.tasks.errors import DataError
from qs5.tasks.task import OneHot, Split, Task

FILES = {"train": "basic_train.tsv", "validation": "basic_val.tsv", "test": "basic_test.tsv"}
BELOW = ("", "listops-1000", "listops", "lra_release/listops-1000", "lra_release/lra_release/listops-1000")
HEADER = "Source\tTarget"
GENERATED = "generated.json"  # beside files that `qs5 data make listops` wrote
WIDTH = 20  # of the one-hot vector in the official code; there are 18 tokens
LRA = "https://storage.googleapis.com/long-range-arena/lra_release.gz"

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MAX": max,
    "[MIN": min,
    "[MED": lambda values: _twice_median(values) // 2,
    "[SM": lambda values: sum(values) % 10,
}
CLOSE = "]"
VOCABULARY = (*tokens.SPECIALS, *"0123456789", *OPERATORS, CLOSE)
NUMBER = {token: number for number, token in enumerate(VOCABULARY) if token not in tokens.SPECIALS}
_WITHOUT_PARSE = str.maketrans("", "", "()")


def load_listops(
    *,
    data_dir: str | None = None,
    length: int = 2048,
    selection: str = "validation",
    width: int = WIDTH,
    verify: bool = False,
) -> Task:
    """The task `listops` (or `listops-qs5`): tokens (N, length, 1), one-hot; ten classes, the values 0 to 9.

    length: steps, <eos> included; a longer expression is cut.
    selection: "validation", or "test" as the paper selects.
    width: of the one-hot vector, at least 18.
    verify: compute the value of every expression, and refuse a file with a wrong one.
    Raises DataError when the files are not there or are malformed.
    """
    tokens.check_length("listops", length)
    tokens.check_selection("listops", selection)
    if not len(VOCABULARY) <= width <= 256:
        raise DataError(
            f"listops: expected a width from {len(VOCABULARY)} to 256, got {width!r}; correct the option"
        )
    folder = _folder(data_dir)
    splits = {name: _read(folder / file, length=length, verify=verify) for name, file in FILES.items()}
    validation, rule = tokens.selected(splits["validation"], splits["test"], selection)
    return Task(
        name="listops-qs5" if (folder / GENERATED).is_file() else "listops",
        train=splits["train"],
        validation=validation,
        test=splits["test"],
        encoding=OneHot(width=width),
        classes=tuple("0123456789"),
        units=None,
        objective="classification",
        metric="accuracy",
        selection=rule,
        channels=VOCABULARY,
    )


def words(expression: str) -> list[str]:
    """The tokens of an expression without the round brackets."""
    return expression.translate(_WITHOUT_PARSE).split()


def evaluate(expression: str) -> int:
    """The value of an expression, 0 to 9. Raises DataError when it is none."""
    stack: list[tuple[str, list[int]]] = [("", [])]
    for word in words(expression):
        if word in OPERATORS:
            stack.append((word, []))
        elif word == CLOSE and len(stack) > 1 and stack[-1][1]:
            operator, values = stack.pop()
            stack[-1][1].append(OPERATORS[operator](values))
        elif len(word) == 1 and word in "0123456789":
            stack[-1][1].append(int(word))
        else:
            raise DataError(
                f"expected a digit, one of {', '.join(OPERATORS)}, or a fitting {CLOSE}, got {word!r}"
            )
    if len(stack) != 1 or len(stack[0][1]) != 1:
        raise DataError(
            f"expected one complete expression, got {len(stack) - 1} open and {len(stack[0][1])} values"
        )
    return stack[0][1][0]


def _twice_median(values: list[int]) -> int:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] + ordered[middle - 1 + len(values) % 2]


# ---- files ----


def _folder(data_dir: str | None) -> Path:
    folders = places.directories(data_dir, task="listops", below=BELOW)
    found = places.find([FILES["train"]], folders)
    if found is None:
        raise places.missing(
            "listops",
            wanted=", ".join(FILES.values()),
            data_dir=data_dir,
            remedy=f"take listops-1000/ out of {LRA}, or make such files: qs5 data make listops --out DIR",
        )
    return found.parent


def _read(path: Path, *, length: int, verify: bool) -> Split:
    rows: list[np.ndarray] = []
    labels: list[int] = []
    for source, expression, target in _rows(path):
        rows.append(_numbers(expression, source))
        labels.append(target)
        if verify and (value := _value(expression, source)) != target:
            raise DataError(f"{source}: expected the value {value}, got {target}; the file is wrong")
    if not rows:
        raise DataError(f"{path}: expected expressions, got none below the header; fetch it again")
    x, lengths = tokens.pad(rows, count=len(rows), length=length)
    return Split(x=x, y=np.asarray(labels, np.int32), lengths=lengths)


def _rows(path: Path) -> Iterator[tuple[str, str, int]]:
    """Place, expression and value of every line."""
    try:
        lines = places.read(path, task="listops").decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected plain text, got {error}; it is not a file of ListOps") from error
    if not lines or lines[0] != HEADER:
        raise DataError(
            f"{path}: expected the header {HEADER!r}, got {lines[0][:60] if lines else ''!r}; "
            "it is not a file of the Long Range Arena"
        )
    for number, line in enumerate(lines[1:], 2):
        expression, tab, target = line.partition("\t")
        if not tab or target not in tuple("0123456789"):
            raise DataError(
                f"{path}, line {number}: expected an expression, a tab and a digit, got {line[-40:]!r}; correct it"
            )
        yield f"{path}, line {number}", expression, int(target)


def _numbers(expression: str, source: str) -> np.ndarray:
    try:
        found = [NUMBER[word] for word in words(expression)]
    except KeyError as error:
        raise DataError(
            f"{source}: expected tokens {' '.join(NUMBER)}, got {error}; correct the line"
        ) from error
    if not found:
        raise DataError(f"{source}: expected an expression, got none; correct the line")
    return np.asarray(found, np.uint8)


def _value(expression: str, source: str) -> int:
    try:
        return evaluate(expression)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
