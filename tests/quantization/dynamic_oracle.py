"""The paper's quantization again, in float64 and Python loops: an oracle for `fake_quant`, `dynamic_scan` and
`dynamic`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Rows = list[Any]


class Quantizer:
    """Q under a range rule. `closest` is how near a number came to a tie between two integers, in steps:
    where it is large enough, float32 must round to the same integers.
    """

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.closest = 0.5

    def tensor(self, x: Any, bits: int | None) -> np.ndarray:
        """Q(x) with one scale for all of x."""
        x = np.asarray(x, np.float64)
        if bits is None or x.size == 0:
            return x
        top = max(abs(v) for v in x.flat) or 1.0
        high = 2 ** (bits - 1) - 1
        step = top / {"paper": high, "aqt": high + 0.5}[self.rule] if bits > 1 else top
        return np.array([self._nearest(v / step, bits, high) * step for v in x.flat]).reshape(x.shape)

    def _nearest(self, scaled: float, bits: int, high: int) -> float:
        if bits == 1:
            return -0.5 if scaled < 0 else 0.5
        if abs(scaled) >= high:
            return math.copysign(high, scaled)
        self.closest = min(self.closest, abs(abs(scaled) % 1.0 - 0.5))
        return round(scaled)  # half to even

    def groups(self, x: Any, bits: int | None, kept: tuple[int, ...]) -> np.ndarray:
        """Q(x) with one scale for every index along the axes `kept`."""
        x = np.asarray(x, np.float64)
        out = np.empty_like(x)
        for index in np.ndindex(*(x.shape[axis] for axis in kept)):
            where: list[Any] = [slice(None)] * x.ndim
            for axis, i in zip(kept, index, strict=True):
                where[axis] = i
            out[tuple(where)] = self.tensor(x[tuple(where)], bits)
        return out

    def complex_product(
        self, a: np.ndarray, b: np.ndarray, a_bits: int | None, b_bits: int | None
    ) -> np.ndarray:
        """a * b of two complex vectors, as four products of quantized real ones."""
        a_re, a_im = self.tensor(np.real(a), a_bits), self.tensor(np.imag(a), a_bits)
        b_re, b_im = self.tensor(np.real(b), b_bits), self.tensor(np.imag(b), b_bits)
        return (a_re * b_re - a_im * b_im) + 1j * (a_re * b_im + a_im * b_re)

    def states(self, a: np.ndarray, b: np.ndarray, a_bits: int | None, state_bits: int | None) -> np.ndarray:
        """States (L, B, M) of the quantized scan, complex: a (M,), b (L, B, M). One sequence at a time."""

        def combine(i: Any, j: Any) -> Any:
            A = self.complex_product(j[0], i[0], a_bits, a_bits)
            return A, self.complex_product(j[0], i[1], a_bits, state_bits) + j[1]

        sequences = [prefix([(a, b_k) for b_k in b[:, n]], combine) for n in range(b.shape[1])]
        return np.stack([[state for _, state in elements] for elements in sequences], axis=1)


def prefix(elements: Sequence[Any], combine: Callable[[Any, Any], Any]) -> Rows:
    """`jax.lax.associative_scan` over a list: pairs, recursion for every second element, then the others."""
    if len(elements) < 2:
        return list(elements)
    second = prefix([combine(*pair) for pair in zip(elements[::2], elements[1::2], strict=False)], combine)
    first = [elements[0]] + [combine(*pair) for pair in zip(second, elements[2::2], strict=False)]
    return [first[k // 2] if k % 2 == 0 else second[k // 2] for k in range(len(elements))]


def pack(z: np.ndarray) -> np.ndarray:
    """Complex (..., M) to real (..., S)."""
    return np.concatenate([np.real(z), np.imag(z)], axis=-1)


def unpack(x: Any) -> np.ndarray:
    """Real (..., S) to complex (..., M)."""
    re, im = np.split(np.asarray(x, np.float64), 2, axis=-1)
    return re + 1j * im
