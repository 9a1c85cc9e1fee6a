"""Codes of eigenvalues that were considered: each as a map from eigenvalues to what its codes stand for.

All take eigenvalues lambda (M,) complex with |lambda| < 1 and a number of bits n, and give the decoded eigenvalues and
the stored bits a mode, everything counted (mantissas, exponents, signs, indices). Exponents are of 4 bits.
`polar` is what became of it (`qs5.numerics.polar`).
"""

from collections.abc import Callable

import numpy as np

from qs5.quantization.polar_search import encode

EXPONENT_BITS = 4
Decoded = tuple[np.ndarray, float]
Form = Callable[[np.ndarray, int], Decoded]


def linear(z: np.ndarray, n: int) -> Decoded:
    """The paper: real and imaginary part on one grid for all modes."""
    step = max(np.max(np.abs(np.real(z))), np.max(np.abs(np.imag(z)))) / (2 ** (n - 1) - 1)
    return np.rint(np.real(z) / step) * step + 1j * np.rint(np.imag(z) / step) * step, 2 * n


def delta(z: np.ndarray, n: int) -> Decoded:
    """lambda - 1, two mantissas and one power of two a mode."""
    d = z - 1
    step = _power(np.maximum(np.abs(np.real(d)), np.abs(np.imag(d)))) / 2 ** (n - 1)
    return 1 + np.rint(np.real(d) / step) * step + 1j * np.rint(
        np.imag(d) / step
    ) * step, 2 * n + EXPONENT_BITS


def rotating_frame(z: np.ndarray, n: int) -> Decoded:
    """A real decay on a logarithmic grid and a phase increment on a uniform one: also plain polar coordinates."""
    angle = np.rint(np.angle(z) / np.pi * 2 ** (n - 1)) * np.pi / 2 ** (n - 1)
    return _log_decay(z, n) * np.exp(1j * angle), 2 * n


def floating_angle(z: np.ndarray, n: int) -> Decoded:
    """A logarithmic decay, and an angle as mantissa (with sign) and power of two."""
    step = _power(np.abs(np.angle(z))) / 2 ** (n - 1)
    return _log_decay(z, n) * np.exp(1j * np.rint(np.angle(z) / step) * step), 2 * n + EXPONENT_BITS


def rotation(z: np.ndarray, n: int) -> Decoded:
    """Three shears, p, s, p, and a decay: mantissa and power of two each. Half turns are folded into a sign bit.

    The eigenvalue of the shears is exp(i arccos(1 + p s)); their skew is left out, which is in their favour.
    """
    half = np.abs(np.angle(z)) > np.pi / 2
    theta = np.where(half, np.angle(z) - np.sign(np.angle(z)) * np.pi, np.angle(z))
    p, s = (_mantissa(v, n) for v in (-np.tan(theta / 2), np.sin(theta)))
    turned = np.arccos(np.clip(1 + p * s, -1, 1)) * np.sign(theta)
    decay = 1 - _mantissa(1 - np.abs(z), n)
    return np.where(half, -1, 1) * decay * np.exp(1j * turned), 3 * (n + EXPONENT_BITS) + 1


def codebook(z: np.ndarray, n: int) -> Decoded:
    """An index into 2^n eigenvalues of the layer (k-means on log decay and angle over decay); the table not counted."""
    a = -np.log(np.abs(z))
    points = np.stack([np.log(a), np.angle(z) / a.mean()], axis=1)
    order = np.argsort(points[:, 1])
    centres = points[order[np.linspace(0, len(z) - 1, min(2**n, len(z))).astype(int)]]
    for _ in range(50):
        nearest = np.argmin(((points[:, None] - centres[None]) ** 2).sum(-1), axis=1)
        centres = np.stack([points[nearest == k].mean(0) if np.any(nearest == k) else c
                            for k, c in enumerate(centres)])  # fmt: skip
    chosen = centres[nearest]
    return np.exp(-np.exp(chosen[:, 0]) + 1j * chosen[:, 1] * a.mean()), n


def polar(z: np.ndarray, n: int) -> Decoded:
    """Decay and step in angle of modes sorted by angle, as the package has it."""
    order = np.argsort(np.abs(np.angle(z)))
    sign = np.where(np.angle(z) < 0, -1, 1)[order]
    upper = np.where(sign < 0, np.conj(z[order]), z[order])
    re, im = encode(upper, bits=n).operands()
    decoded = np.empty_like(z)
    decoded[order] = (re + 1j * sign * im.astype(float)) / 2**15
    return decoded, 2 * n


FORMS: dict[str, tuple[Form, tuple[int, ...]]] = {
    "linear": (linear, (16, 12, 8, 6, 4)),
    "delta": (delta, (12, 8, 6, 4)),
    "rotating frame": (rotating_frame, (12, 10, 8, 6, 4)),
    "floating angle": (floating_angle, (8, 6, 5, 4, 3)),
    "rotation": (rotation, (8, 6, 4, 3)),
    "codebook": (codebook, (6, 5, 4, 3)),
    "polar": (polar, (8, 6, 5, 4, 3, 2)),
}
"""What is measured: the form and the widths n."""


def _log_decay(z: np.ndarray, n: int) -> np.ndarray:
    """|lambda| with -log|lambda| on 2^n points, evenly spaced in its logarithm."""
    x = np.log(np.maximum(-np.log(np.abs(z)), 2.0**-14))
    step = (x.max() - x.min()) / (2**n - 1) or 1.0
    return np.exp(-np.exp(x.min() + np.rint((x - x.min()) / step) * step))


def _power(x: np.ndarray) -> np.ndarray:
    """The smallest power of two not below x, no more than 2^15 apart."""
    top = np.ceil(np.log2(np.maximum(x, 1e-30)))
    return 2.0 ** np.maximum(top, top.max() - 2**EXPONENT_BITS + 1)


def _mantissa(x: np.ndarray, n: int) -> np.ndarray:
    """n bits with sign, and a power of two of its own."""
    step = _power(np.abs(x)) / 2 ** (n - 1)
    return np.rint(x / step) * step


def response_error(z: np.ndarray, decoded: np.ndarray, weight: np.ndarray) -> float:
    """Relative error of a layer's output for white noise, modes taken as independent; infinite where one is unstable.

    sum_p w_p ||z_p^k - d_p^k||^2 / sum_p w_p ||z_p^k||^2,   its root
    """
    if np.any(np.abs(decoded) >= 1):
        return float("inf")
    own, other = 1 / (1 - np.abs(z) ** 2), 1 / (1 - np.abs(decoded) ** 2)
    cross = np.real(1 / (1 - z * np.conj(decoded)))
    return float(np.sqrt(np.sum(weight * (own + other - 2 * cross)) / np.sum(weight * own)))
