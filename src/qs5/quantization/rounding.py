"""Codes of a weight matrix that suit its inputs: least squares, then coordinate descent over integers.

For inputs X (n, I) with second moments G = X^T X / n, a weight W (I, O) and codes q with one step s an output channel,
the mean square error of an output is a quadratic form,

    |X (q s) - X W|^2 / n = (q s - W)^T G (q s - W)        for each column

Axes in front of these are independent problems of one shape. Plain arrays in, plain arrays out;
`quantization.reconstruction` says what the inputs are. The range rule is the paper's (its equation 3): the largest code
of a channel is the largest there is, so a step can be found again in the weights.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from qs5.numerics.formats import QFormat
from qs5.quantization.weights import FULL_RANGE_FROM, quantize_weight

SWEEPS = 20
"""Coordinate descent stops after so many sweeps, or when one changes nothing."""

CLIP_RATIOS = np.linspace(0.4, 1.0, 9)
"""Clipping points tried below `FULL_RANGE_FROM` bits, as fractions of max|W|."""


class Rounded(NamedTuple):
    """Integer codes (..., I, O) and the step of each output channel (..., 1, O); the weight is their product."""

    codes: np.ndarray
    step: np.ndarray

    @property
    def value(self) -> np.ndarray:
        """(..., I, O) float64."""
        return self.codes * self.step


def least_squares(W: np.ndarray, gram: np.ndarray, cross: np.ndarray, *, pull: float) -> np.ndarray:
    """argmin over V of |X V - Y|^2 / n + pull sum_i G_ii |V_i - W_i|^2, with cross = X^H Y / n. (..., I, O)

    Complex problems too, where gram = X^H X / n.
    """
    own = np.real(np.diagonal(gram, axis1=-2, axis2=-1))
    # A dead input, a zero row, is not to make the system singular.
    held = pull * own + 1e-9 * np.mean(own, axis=-1, keepdims=True) + 1e-30
    return W + np.linalg.solve(gram + held[..., None] * np.eye(own.shape[-1]), cross - gram @ W)


def nearest(W: np.ndarray, *, bits: int) -> Rounded:
    """Every weight to its nearest code, as `quantize_weight` does it."""
    q = quantize_weight(jnp.asarray(W, jnp.float32), bits=bits, axes=(-2,), rule="paper")
    return Rounded(np.asarray(q.codes, np.float64), np.asarray(q.step, np.float64))


def fitted(W: np.ndarray, gram: np.ndarray, *, bits: int) -> Rounded:
    """Codes of least error under `gram` that coordinate descent finds, from several steps a channel.

    Never worse than `nearest`, channel by channel. `quantize_weight` finds the same codes and steps again in the
    rounded weight. From 2 bits on: with one bit all codes are alike.
    """
    best = nearest(W, bits=bits)
    high = QFormat(bits).high
    full = np.max(np.abs(W), axis=-2, keepdims=True) / high
    for ratio in CLIP_RATIOS if bits < FULL_RANGE_FROM else (1.0,):
        start = np.where(full > 0.0, ratio * full, best.step)
        best = _better(best, _at_the_edge(W, gram, start, high=high), W, gram, high=high)
    return best


def error(rounded: Rounded, W: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The quadratic form above, (..., 1, O)."""
    d = rounded.value - W
    return np.sum(d * (gram @ d), axis=-2, keepdims=True)


def descend(W: np.ndarray, gram: np.ndarray, start: Rounded, *, high: int) -> Rounded:
    """From `start`, one code at a time to its best value while the others stand, until nothing changes.

    The error as a function of one code is a parabola, so its best integer is the rounded minimum.
    """
    codes, step = start.codes.copy(), start.step
    slope = gram @ (codes * step - W)
    for _ in range(SWEEPS):
        changed = False
        for i in range(codes.shape[-2]):
            row, own = np.s_[..., i : i + 1, :], gram[..., i : i + 1, i : i + 1]
            distance = np.divide(slope[row], own * step, out=np.zeros_like(slope[row]), where=own > 0.0)
            best = _codes(codes[row] - distance, high)
            move = (best - codes[row]) * step
            if np.any(move):
                slope += gram[..., :, i : i + 1] * move
                codes[row] = best
                changed = True
        if not changed:
            break
    return Rounded(codes, step)


def _codes(x: np.ndarray, high: int) -> np.ndarray:
    """`weights.round_codes` of x in steps, in double precision."""
    return np.clip(np.floor(x + 0.5), -high, high)


def _at_the_edge(W: np.ndarray, gram: np.ndarray, step: np.ndarray, *, high: int) -> Rounded:
    """Descent with steps made smaller until every channel uses its largest code, from which its step is known."""
    found = Rounded(np.zeros_like(W), step)
    for _ in range(SWEEPS):
        start = Rounded(_codes(W / step, high), step)
        found = descend(W, gram, start, high=high)
        top = np.max(np.abs(found.codes), axis=-2, keepdims=True)
        short = (top < high) & (top > 0)
        if not np.any(short):
            break
        step = np.where(short, step * top / high, step)
    return found


def _better(a: Rounded, b: Rounded, W: np.ndarray, gram: np.ndarray, *, high: int) -> Rounded:
    """Channel by channel the one of less error; b only where its step can be found again in its weights."""
    known = np.max(np.abs(b.codes), axis=-2, keepdims=True) >= high
    take = known & (error(b, W, gram) < error(a, W, gram))
    return Rounded(np.where(take, b.codes, a.codes), np.where(take, b.step, a.step))
