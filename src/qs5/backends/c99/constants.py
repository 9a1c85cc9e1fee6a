"""Constants in ROM: every array once, however many ops have it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from qs5.backends.c99.text import int64

C_TYPES = {
    np.dtype(name): f"{name}_t" for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
}
_LINE = 110


@dataclass
class Constants:
    """Definitions in order; `add` answers with the name to use."""

    definitions: list[str] = field(default_factory=list)
    _known: dict[tuple[str, bytes], str] = field(default_factory=dict)

    def add(self, name: str, values: np.ndarray) -> str:
        """A static const array of that name, or the name of an equal one. values: one axis, not empty."""
        key = (values.dtype.name, values.tobytes())
        if key not in self._known:
            self._known[key] = name
            self.definitions.append(definition(name, values))
        return self._known[key]


def definition(name: str, values: np.ndarray, *, extents: str | None = None) -> str:
    """`static const TYPE name[n] = {...};` extents: instead of [n]."""
    head = f"static const {C_TYPES[values.dtype]} {name}{extents or f'[{values.size}]'} = {{"
    return "\n".join([head, *_lines(values.ravel()), "};"])


def _lines(values: np.ndarray) -> Iterator[str]:
    line = "   "
    for word in map(_literal, values):
        if len(line) + len(word) + 2 > _LINE:
            yield line
            line = "   "
        line += f" {word},"
    yield line


def _literal(value: np.generic) -> str:
    if value.dtype == np.uint32:
        return f"0x{int(value):08X}u"
    if value.dtype == np.int64:
        return int64(int(value))
    return "(-2147483647 - 1)" if int(value) == -(2**31) else str(int(value))
