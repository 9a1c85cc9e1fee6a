"""Random ListOps expressions with the parameters of the Long Range Arena.

A node is a digit with probability 3/4, and always at the greatest depth; else an operator, each of the four as likely,
with 2 to `max_args` arguments. Expressions whose length in tokens (round brackets not counted) is not between the
limits are drawn again. All expressions of a data set differ.

Source: Y. Tay et al., "Long Range Arena", 2021, and the parameters of its generator (`lra_benchmarks/data/listops.py`);
the code is ours.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qs5.files import write_beside
from qs5.tasks.errors import DataError
from qs5.tasks.listops import CLOSE, FILES, GENERATED, HEADER, OPERATORS

DIGIT_PROBABILITY = 0.75
PATIENCE = 10_000  # expressions in a row that were drawn before


@dataclass(frozen=True, kw_only=True)
class ListOpsOptions:
    """What `make` draws; the defaults are the arena's."""

    train: int = 96_000
    validation: int = 2_000
    test: int = 2_000
    min_length: int = 500
    """Expressions are longer than this, in tokens."""
    max_length: int = 2_000
    """Expressions are shorter than this."""
    max_depth: int = 10
    max_args: int = 10
    seed: int = 0


def check_options(o: ListOpsOptions) -> None:
    """Raises DataError when there is no expression within the limits."""
    if (
        min(o.train, o.validation, o.test, o.max_depth) < 1
        or o.max_args < 2
        or o.max_length - o.min_length < 2
    ):
        raise DataError(
            "listops: expected counts and depth of at least 1, max_args of at least 2 and room between "
            f"min_length and max_length, got {o}; correct the options"
        )
    if o.min_length >= longest(o.max_depth, o.max_args):
        raise DataError(
            f"listops: expected expressions longer than {o.min_length} tokens to exist, got a longest one of "
            f"{longest(o.max_depth, o.max_args)}; raise max_depth or max_args, or lower min_length"
        )


def longest(max_depth: int, max_args: int) -> int:
    """Tokens of the largest tree: digits at the greatest depth, an operator with its bracket at every other node."""
    return max_args ** (max_depth - 1) + 2 * sum(max_args**k for k in range(max_depth - 1))


class TooLong(Exception):
    """The expression that is being drawn is not going to be short enough."""


class Drawing:
    """One expression: its words in order (with round brackets), its length without them."""

    def __init__(self, rng: random.Random, options: ListOpsOptions) -> None:
        self._rng, self._options = rng, options
        self.words: list[str] = []
        self.length = 0

    def node(self, depth: int) -> int:
        """Draw a node and all below it; its value."""
        o = self._options
        if depth >= o.max_depth or self._rng.random() < DIGIT_PROBABILITY:
            digit = self._rng.randrange(10)
            self._add(str(digit), 1)
            return digit
        operator = self._rng.choice(tuple(OPERATORS))
        count = self._rng.randint(2, o.max_args)
        self.words += ["("] * (count + 1)
        self._add(operator, 2)
        values = []
        for _ in range(count):
            values.append(self.node(depth + 1))
            self.words.append(")")
        self.words += [CLOSE, ")"]
        return OPERATORS[operator](values)

    def _add(self, word: str, tokens: int) -> None:
        self.words.append(word)
        self.length += tokens
        if self.length >= self._options.max_length:
            raise TooLong


def draw(rng: random.Random, options: ListOpsOptions) -> tuple[str, int]:
    """A random expression within the limits, and its value."""
    while True:
        drawing = Drawing(rng, options)
        try:
            value = drawing.node(1)
        except TooLong:
            continue
        if drawing.length > options.min_length:
            return " ".join(drawing.words), value


def make(
    folder: Path, options: ListOpsOptions, *, progress: Callable[[int, int], None] = lambda *_: None
) -> dict[str, Path]:
    """Write the three files into `folder`, with a note beside them of what they are; their paths by split.

    progress: called with (expressions drawn, expressions in all). The result is a function of the options alone.
    Raises DataError when there are no, or not enough, expressions within the limits.
    """
    check_options(options)
    sizes = {"train": options.train, "validation": options.validation, "test": options.test}
    total = sum(sizes.values())
    rng, found, repeated = random.Random(options.seed), dict[str, int](), 0
    while len(found) < total and repeated < PATIENCE:
        expression, value = draw(rng, options)
        repeated = repeated + 1 if expression in found else 0
        found[expression] = value
        progress(len(found), total)
    if len(found) < total:
        raise DataError(
            f"listops: expected {total} different expressions, got {len(found)}; raise max_length"
        )
    note = {"made_by": "qs5 data make listops", **dataclasses.asdict(options)}
    # The note goes first: at no moment do the files lie there without it.
    write_beside(folder / GENERATED, (json.dumps(note, indent=1) + "\n").encode())
    rows = iter(found.items())
    for split, size in sizes.items():
        lines = [HEADER, *(f"{expression}\t{value}" for expression, value in itertools.islice(rows, size))]
        write_beside(folder / FILES[split], ("\n".join(lines) + "\n").encode())
    return {split: folder / name for split, name in FILES.items()}
