"""The S5 network in PyTorch, with the parameters of an `S5Model`: twice, with our scan and with s5-pytorch's.

Ours ("chunked"): a loop over all steps is hopeless in PyTorch, so the sequence is cut into chunks of T steps. Within
one, the states are a lower-triangular Toeplitz matrix of powers of Lambda-bar times the inputs, one real (2T, 2T)
product a mode; what one chunk hands to the next is such a product over the chunks. T is near the root of the 784
steps of sMNIST. All in real numbers, which torch.compile can take; a loop over the chunks instead made it compile for
minutes.

Layers are the float ones of `qs5.model.layer`: pre-norm layer norm, one direction, half_glu1, no dropout.
"""

# PyTorch and s5-pytorch are in the extra bench alone.
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module, ModuleList, Parameter, functional as F

from qs5.model.network import S5Model
from qs5.model.norms import LAYER_EPS

CHUNK = 28


def _parameter(array: Any) -> Parameter:
    return Parameter(torch.tensor(np.array(array)))


class Chunked(Module):
    """y = 2 Re(C x) + D u for u (B, L, H), L a multiple of the chunk."""

    def __init__(self, ssm: Any) -> None:
        super().__init__()
        self.Lambda_re, self.Lambda_im = _parameter(ssm.Lambda_re), _parameter(ssm.Lambda_im)
        self.B_re, self.B_im = _parameter(ssm.B_re), _parameter(ssm.B_im)
        self.C_re, self.C_im = _parameter(ssm.C_re), _parameter(ssm.C_im)
        self.D, self.log_step = _parameter(ssm.D), _parameter(ssm.log_step)

    def _powers(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Re and Im of Lambda-bar^k, (M, *k.shape)."""
        step = torch.exp(self.log_step)
        decay, angle = (step * part for part in (self.Lambda_re, self.Lambda_im))
        shape = (-1,) + (1,) * k.ndim
        size = torch.exp(decay.view(shape) * k)
        return size * torch.cos(angle.view(shape) * k), size * torch.sin(angle.view(shape) * k)

    def _B_bar(self) -> Tensor:
        """[Re; Im] of (Lambda-bar - 1) / Lambda B, (H, 2M)."""
        a_re, a_im = self._powers(torch.ones(()))
        norm = self.Lambda_re**2 + self.Lambda_im**2
        g_re = ((a_re - 1) * self.Lambda_re + a_im * self.Lambda_im) / norm
        g_im = (a_im * self.Lambda_re - (a_re - 1) * self.Lambda_im) / norm
        re = g_re[:, None] * self.B_re - g_im[:, None] * self.B_im
        im = g_re[:, None] * self.B_im + g_im[:, None] * self.B_re
        return torch.cat([re, im]).T

    def forward(self, u: Tensor) -> Tensor:
        states = self._states(u @ self._B_bar())
        C = torch.cat([self.C_re, -self.C_im], dim=1).T
        return 2.0 * (states @ C) + self.D * u

    def _states(self, Bu: Tensor) -> Tensor:
        B, L, S = Bu.shape
        chunks, T, M = L // CHUNK, CHUNK, S // 2
        # (M, 2T, chunks B): rows are the real, then the imaginary parts of a chunk's steps.
        columns = Bu.view(B, chunks, T, 2, M).permute(4, 3, 2, 1, 0).reshape(M, 2 * T, chunks * B)
        local = (self._toeplitz(T, 1) @ columns).view(M, 2, T, chunks, B)
        # The same over chunks: before chunk c the state is the sum over j < c of Lambda-bar^(T (c - 1 - j)) last_j.
        last = local[:, :, -1, :-1].reshape(M, 2 * (chunks - 1), B)
        carried = (self._toeplitz(chunks - 1, T) @ last).view(M, 2, chunks - 1, B)
        carried = F.pad(carried, (0, 0, 1, 0))
        grown_re, grown_im = (p[:, :, None, None] for p in self._powers(torch.arange(1.0, T + 1)))
        c_re, c_im = carried[:, 0, None], carried[:, 1, None]
        re = local[:, 0] + grown_re * c_re - grown_im * c_im
        im = local[:, 1] + grown_re * c_im + grown_im * c_re
        return torch.stack([re, im], dim=1).permute(4, 3, 2, 1, 0).reshape(B, L, S)

    def _toeplitz(self, n: int, stride: int) -> Tensor:
        """[[K_re, -K_im], [K_im, K_re]], K[i, j] = Lambda-bar^(stride (i - j)) for j <= i, (M, 2n, 2n)."""
        steps = stride * torch.arange(float(n))
        lag = steps[:, None] - steps[None, :]
        re, im = (p * (lag >= 0) for p in self._powers(lag.clamp(min=0)))
        return torch.cat([torch.cat([re, -im], dim=2), torch.cat([im, re], dim=2)], dim=1)


def s5_pytorch(ssm: Any) -> Module:
    """The operator of the package s5-pytorch with these parameters: M states without conjugates, C doubled for them."""
    from s5 import S5

    H, M = np.shape(ssm.C_re)
    made = S5(H, M, bcInit="dense")
    values = {
        "Lambda": np.asarray(ssm.Lambda_re) + 1j * np.asarray(ssm.Lambda_im),
        "B": np.stack([ssm.B_re, ssm.B_im], axis=-1),
        "C": 2.0 * (np.asarray(ssm.C_re) + 1j * np.asarray(ssm.C_im)),
        "D": ssm.D,
        "log_step": ssm.log_step,
    }
    for name, value in values.items():
        parameter = getattr(made.seq, name)
        parameter.data = torch.tensor(np.array(value), dtype=parameter.dtype).reshape(parameter.shape)
    return made


class Layer(Module):
    """x + g sigmoid(W g + b), g = gelu(SSM(norm(x)))."""

    def __init__(self, layer: Any, ssm: Module) -> None:
        super().__init__()
        self.ssm = ssm
        self.scale, self.bias = _parameter(layer.norm.scale), _parameter(layer.norm.bias)
        self.W, self.b = _parameter(layer.gate.weight), _parameter(layer.gate.bias)

    def forward(self, x: Tensor) -> Tensor:
        u = F.layer_norm(x, x.shape[-1:], self.scale, self.bias, LAYER_EPS)
        g = F.gelu(self.ssm(u), approximate="tanh")
        return x + g * torch.sigmoid(g @ self.W + self.b)


class Network(Module):
    """Logits (B, classes) of x (B, L, d)."""

    def __init__(self, model: S5Model, operator: Any) -> None:
        super().__init__()
        self.encoder_weight, self.encoder_bias = (
            _parameter(model.encoder.weight),
            _parameter(model.encoder.bias),
        )
        self.decoder_weight, self.decoder_bias = (
            _parameter(model.decoder.weight),
            _parameter(model.decoder.bias),
        )
        self.layers = ModuleList([Layer(layer, operator(layer.ssm)) for layer in model.layers])

    def forward(self, x: Tensor) -> Tensor:
        h = x @ self.encoder_weight + self.encoder_bias
        for layer in self.layers:
            h = layer(h)
        return h.mean(dim=1) @ self.decoder_weight + self.decoder_bias
