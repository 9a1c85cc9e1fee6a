"""Texts as padded arrays of token numbers, as the Long Range Arena's tasks have them.

The first three numbers of every vocabulary are special: padding 0, unknown 1, end of sequence 2. A text is cut to
L - 1 tokens, ended with <eos> and padded on the right to L.

Source: lindermanlab/S5 `dataloaders/lra.py` (IMDB, ListOps and AAN do the same there).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from qs5.tasks.errors import DataError
from qs5.tasks.task import PAPER, VALIDATION, Split

UNKNOWN, END = 1, 2  # padding is 0, as `pad` leaves it
SPECIALS = ("<pad>", "<unk>", "<eos>")
CODE_POINTS = 0x110000

Selection = Literal["validation", "test"]


@dataclass(frozen=True)
class Characters:
    """A vocabulary of single characters: `SPECIALS`, then `known` in order, at most 253 of them."""

    known: str

    @property
    def tokens(self) -> tuple[str, ...]:
        """The names of the tokens, by number."""
        return (*SPECIALS, *self.known)

    def encode(self, texts: Sequence[str], *, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token numbers (N, length, 1) uint8 and true lengths (N,) int32, <eos> included."""
        number = np.full(CODE_POINTS, UNKNOWN, np.uint8)
        for token, character in enumerate(self.known, len(SPECIALS)):
            number[ord(character)] = token
        return pad(
            (number[code_points(text[: length - 1])] for text in texts), count=len(texts), length=length
        )


def code_points(text: str) -> np.ndarray:
    """The Unicode code points of a text, (n,) uint32. A lone surrogate, which is no character, is kept as it is."""
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)


def pad(rows: Iterable[np.ndarray], *, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` rows of token numbers, each cut to length - 1, with <eos> behind it: (count, length, 1), lengths."""
    x, lengths = np.zeros((count, length, 1), np.uint8), np.zeros(count, np.int32)
    for i, row in enumerate(rows):
        n = min(len(row), length - 1)
        x[i, :n, 0] = row[:n]
        x[i, n, 0] = END
        lengths[i] = n + 1
    return x, lengths


def check_length(task: str, length: int) -> None:
    """Raises DataError unless there is room for a token and <eos>."""
    if isinstance(length, bool) or not isinstance(length, int) or length < 2:
        raise DataError(f"{task}: expected a length of at least 2 steps, got {length!r}; correct the option")


def check_selection(task: str, selection: str) -> None:
    """Raises DataError unless the option is one of the two."""
    if selection not in ("validation", "test"):
        raise DataError(f"{task}: expected selection to be validation or test, got {selection!r}; choose one")


def selected(validation: Split, test: Split, selection: str) -> tuple[Split, str]:
    """The split that selects the checkpoint, and the name of the rule: the paper selects on the test split."""
    return (test, PAPER) if selection == "test" else (validation, VALIDATION)
