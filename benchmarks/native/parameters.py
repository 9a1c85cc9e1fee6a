"""Random float parameters of the paper's sMNIST structure, and its forward pass in NumPy.

That is the oracle of the float peers, `float_engine.c` and `onnx_step.py` (tests/test_benchmarks.py).
"""

from dataclasses import dataclass

import numpy as np

LAYERS, H, MODES = 4, 96, 64
"""The paper's sMNIST model: P = 128 is 64 complex modes with their conjugates."""


@dataclass(frozen=True)
class Layer:
    """Batch norm folded to gain and offset; B (2M, H), C (H, 2M) real, packed re, im; W, bias of the gate."""

    gain: np.ndarray
    offset: np.ndarray
    B: np.ndarray
    re: np.ndarray
    im: np.ndarray
    C: np.ndarray
    D: np.ndarray
    W: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Parameters:
    """Encoder from one channel, then the layers."""

    encoder: np.ndarray
    encoder_bias: np.ndarray
    layers: tuple[Layer, ...]

    @property
    def flat(self) -> np.ndarray:
        """In the order in which `float_engine.c` takes them."""
        parts = [self.encoder, self.encoder_bias]
        for layer in self.layers:
            parts += [getattr(layer, name) for name in Layer.__dataclass_fields__]
        return np.concatenate([part.ravel() for part in parts])


def random_parameters(seed: int) -> Parameters:
    """Such that signals neither vanish nor grow, so that no denormal numbers slow anything down."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.normal(size=shape) * scale).astype(np.float32)

    def layer() -> Layer:
        decay, angle = rng.uniform(0.9, 0.999, MODES), rng.uniform(-np.pi, np.pi, MODES)
        return Layer(
            gain=rng.uniform(0.5, 1.5, H).astype(np.float32),
            offset=normal(H, scale=0.1),
            B=normal(2 * MODES, H, scale=0.1 / np.sqrt(H)),
            re=(decay * np.cos(angle)).astype(np.float32),
            im=(decay * np.sin(angle)).astype(np.float32),
            C=normal(H, 2 * MODES, scale=1.0 / np.sqrt(MODES)),
            D=normal(H),
            W=normal(H, H, scale=1.0 / np.sqrt(H)),
            bias=normal(H),
        )

    return Parameters(normal(H), normal(H), tuple(layer() for _ in range(LAYERS)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(1.5957691216 * (x + 0.044715 * x**3))


def final_sums(p: Parameters, u: np.ndarray) -> np.ndarray:
    """What the mean pool sums, for u (B, L): (B, H)."""
    x = u[..., None] * p.encoder + p.encoder_bias
    for layer in p.layers:
        n = x * layer.gain + layer.offset
        Bu = n @ layer.B.T
        a, q = layer.re + 1j * layer.im, np.zeros((len(u), MODES), np.complex128)
        states = np.empty_like(Bu)
        for k in range(u.shape[1]):
            q = a * q + (Bu[:, k, :MODES] + 1j * Bu[:, k, MODES:])
            states[:, k] = np.concatenate([q.real, q.imag], axis=-1)
        g = gelu(states @ layer.C.T + layer.D * n)
        x = x + g * sigmoid(g @ layer.W.T + layer.bias)
    return x.sum(axis=1)
