"""Weight codes of 1 to 8 bits as bytes. SPEC.md, section 5.2.

Codes are stored as unsigned n-bit numbers, code + 2^(n-1) (1 bit: 0 for -1, 1 for +1), the first code in the
lowest bits of the first byte, without gaps; the last byte is filled up with zero bits.
"""

import numpy as np


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` codes."""
    return (count * bits + 7) // 8


def pack(codes: np.ndarray, bits: int) -> bytes:
    """Codes of any shape, in C order."""
    flat = np.asarray(codes, np.int64).reshape(-1)
    unsigned = (flat + 1) // 2 if bits == 1 else flat + 2 ** (bits - 1)
    planes = (unsigned[:, None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8), bitorder="little").tobytes()


def unpack(data: bytes, *, count: int, bits: int) -> np.ndarray:
    """The inverse: `count` codes as int8."""
    planes = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: count * bits]
    unsigned = planes.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits))
    return (2 * unsigned - 1 if bits == 1 else unsigned - 2 ** (bits - 1)).astype(np.int8)
