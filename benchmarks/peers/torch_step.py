"""One step of the folded float network in PyTorch, called from Python: the peer of a streaming engine."""

# PyTorch and s5-pytorch are in the extra bench alone.
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.native.parameters import Parameters

State = tuple[list[Tensor], Tensor]


class TorchStep:
    """u (B, 1) and (states (B, 2M) a layer, sums (B, H)) to the states after one step."""

    def __init__(self, p: Parameters, *, compiled: bool) -> None:
        self._encoder, self._bias = torch.tensor(p.encoder[None]), torch.tensor(p.encoder_bias)
        self._layers = [{k: torch.tensor(np.array(v)) for k, v in vars(layer).items()} for layer in p.layers]
        self._step: Any = torch.compile(self._plain) if compiled else self._plain

    def zeros(self, batch: int) -> State:
        """Before the first step."""
        first = self._layers[0]
        return [torch.zeros(batch, len(first["B"])) for _ in self._layers], torch.zeros(
            batch, len(self._bias)
        )

    def _plain(self, u: Tensor, states: list[Tensor], total: Tensor) -> State:
        x, after = u @ self._encoder + self._bias, []
        for layer, state in zip(self._layers, states, strict=True):
            x, state = _layer(layer, x, state)
            after.append(state)
        return after, total + x

    def run(self, u: Tensor, state: State) -> State:
        """Steps u (B, L), a call each."""
        with torch.inference_mode():
            for k in range(u.shape[1]):
                state = self._step(u[:, k : k + 1], *state)
        return state


def _layer(p: dict[str, Tensor], x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    n = x * p["gain"] + p["offset"]
    Bu, (re, im) = n @ p["B"].T, state.chunk(2, dim=1)
    turned = torch.cat([p["re"] * re - p["im"] * im, p["re"] * im + p["im"] * re], dim=1)
    state = turned + Bu
    g = F.gelu(state @ p["C"].T + p["D"] * n, approximate="tanh")
    return x + g * torch.sigmoid(g @ p["W"].T + p["bias"]), state
