"""Arrays as C source: how inputs and expected outputs get into a program."""

from collections.abc import Iterator

import numpy as np

_TYPES = {f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32)}
_PER_LINE = 16


def c_array(name: str, values: np.ndarray) -> str:
    """A definition such as `static const int8_t name[2][3] = {...};`, shape and type those of `values`.

    Types: 8, 16 and 32 bits, signed or not; the source must include <stdint.h>.
    """
    kind = _TYPES.get(values.dtype.name)
    if kind is None or values.ndim == 0 or values.size == 0:
        raise ValueError(
            f"expected a non-empty array of {', '.join(_TYPES)}, got {values.dtype} of shape {values.shape}"
        )
    extents = "".join(f"[{n}]" for n in values.shape)
    return f"static const {kind} {name}{extents} =\n{_braces(values)};\n"


def _braces(values: np.ndarray) -> str:
    parts = list(_lines(values)) if values.ndim == 1 else [_braces(row) for row in values]
    return "{" + ",\n".join(parts) + "}"


def _lines(values: np.ndarray) -> Iterator[str]:
    words = [_literal(int(v)) for v in values]
    return (", ".join(words[i : i + _PER_LINE]) for i in range(0, len(words), _PER_LINE))


def _literal(value: int) -> str:
    if value == -(2**31):
        return "(-2147483647 - 1)"  # C has no negative literals: 2147483648 would not fit an int
    return f"{value}u" if value >= 2**31 else str(value)
