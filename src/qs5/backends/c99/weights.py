"""Weights as the words that the matrix kernels read: see "products of matrices" in runtime/qs5_kernels.h."""

import numpy as np

INT32 = 2**31 - 1
DIRECT = 2**24
"""Bound of the direct term D u, which joins the accumulator."""


def width_of(bits: int) -> int:
    """Bits that a weight takes in ROM: 2, 4 or 8."""
    return 2 if bits <= 2 else 4 if bits <= 4 else 8


def safe_width(bits: int, *, columns: int, high: int, bias: int) -> int:
    """`width_of`, or 8 where the accumulator of a narrower width might leave 32 bits on its way.

    A field holds w + h, h = 2^(width-1), so the accumulator starts at bias - h sum(x) and then rises by up to
    (2 h - 1) sum |x|: 3 h columns high + |bias| bounds every value between.
    """
    width = width_of(bits)
    worst = 3 * 2 ** (width - 1) * columns * high + bias + DIRECT
    return width if worst <= INT32 else 8


def group_of(width: int) -> int:
    """Columns of a group; x must be readable up to a whole number of them."""
    return 16 if width == 2 else 8


def words_of(weight: np.ndarray, width: int) -> np.ndarray:
    """weight (rows, columns) int8 as uint32 words, blocks of four rows first, then row by row."""
    rows, columns = weight.shape
    group = group_of(width)
    fields = np.zeros((rows, -(-columns // group) * group), np.uint32)
    shifted = weight.astype(np.int64) + (0 if width == 8 else 2 ** (width - 1))
    fields[:, :columns] = shifted & (2**width - 1)
    words = _join(fields, width)
    whole = rows // 4 * 4
    row = 2 if width == 8 else 1
    blocks = words[:whole].reshape(whole // 4, 4, words.shape[1] // row, row)
    return np.concatenate([blocks.transpose(0, 2, 1, 3).ravel(), words[whole:].ravel()])


def _join(fields: np.ndarray, width: int) -> np.ndarray:
    """Fields (rows, n) to words (rows, n width / 32): even columns in the low halfword, odd ones in the high."""
    per_word = 32 // width
    column = np.arange(per_word)
    at = (width * (column // 2) + 16 * (column % 2)).astype(np.uint32)
    parts = fields.reshape(len(fields), -1, per_word) << at
    return np.bitwise_or.reduce(parts, axis=-1)
