"""Weight codes of 1 to 8 bits as bytes. SPEC.md, section 5.2.

Codes are stored as unsigned n-bit numbers, code + 2^(n-1) (1 bit: 0 for -1, 1 for +1), the first code in the
lowest bits of the first byte, without gaps; the last byte is filled up with zero bits.
"""

import numpy as np

_BLOCK = 2**16
"""Codes unpacked at a time, a multiple of 8: their bits take as many bytes."""


def packed_size(count: int, bits: int) -> int:
    """Bytes of `count` codes."""
    return (count * bits + 7) // 8


def pack(codes: np.ndarray, bits: int) -> bytes:
    """Codes of any shape, in C order."""
    flat = np.asarray(codes, np.int16).reshape(-1)
    unsigned = ((flat + 1) // 2 if bits == 1 else flat + 2 ** (bits - 1)).astype(np.uint8)
    planes = (unsigned[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(planes, bitorder="little").tobytes()


def unpack(data: bytes, *, count: int, bits: int) -> np.ndarray:
    """The inverse: `count` codes as int8."""
    packed, codes = np.frombuffer(data, np.uint8), np.empty(count, np.int8)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        planes = np.unpackbits(packed[start * bits // 8 : packed_size(stop, bits)], bitorder="little")
        planes = planes[: (stop - start) * bits].reshape(stop - start, bits)
        unsigned = planes @ (1 << np.arange(bits, dtype=np.int16))
        codes[start:stop] = 2 * unsigned - 1 if bits == 1 else unsigned - 2 ** (bits - 1)
    return codes
