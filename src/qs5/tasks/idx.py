"""Reader of the idx format in which MNIST is distributed.

Layout: two zero bytes, one byte element type (0x08: uint8), one byte number of axes, each axis as a
big-endian 32-bit integer, then the elements. A file may be gzip-compressed, which is told by its content, not
by its name.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib

import numpy as np

from qs5.tasks.errors import DataError

UINT8 = 0x08
GZIP_MAGIC = b"\x1f\x8b"


def decompress(content: bytes, *, name: str) -> bytes:
    """The plain bytes of `content`, which may be gzip or plain already.

    name: what to call the file in an error. Raises DataError when the compressed stream is damaged.
    """
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{name}: expected a complete gzip file, got a damaged one ({error}); "
            "delete it and fetch it again"
        ) from error


def parse(content: bytes, *, name: str, axes: int) -> np.ndarray:
    """The array in the plain bytes of an idx file: uint8 of `axes` axes.

    Raises DataError on another magic number, another number of axes, or a wrong number of bytes.
    """
    magic = bytes((0, 0, UINT8, axes))
    if content[:4] != magic:
        raise DataError(
            f"{name}: expected the idx header {magic.hex()} (uint8, {axes} axes), got "
            f"{content[:4].hex() or 'an empty file'}; check that it is the right file"
        )
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", content[4:start]) if len(content) >= start else ()
    expected = start + math.prod(shape)
    if len(content) != expected or not shape:
        raise DataError(
            f"{name}: expected {expected} bytes for shape {shape}, got {len(content)}; "
            "the file is truncated or damaged, delete it and fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def write(array: np.ndarray) -> bytes:
    """The plain idx bytes of a uint8 array; the inverse of `parse`."""
    header = bytes((0, 0, UINT8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()
