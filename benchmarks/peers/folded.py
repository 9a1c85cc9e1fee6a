"""A trained `S5Model` with batch norm as the float parameters of the inference peers."""

from typing import Any

import numpy as np

from benchmarks.native.parameters import Layer, Parameters
from qs5.model.network import S5Model
from qs5.model.norms import fold, running
from qs5.model.ssm import discrete, output_factor


def folded(model: S5Model, *, scale: float) -> Parameters:
    """Discretized, batch norm folded; scale: of the raw input, folded into the encoder."""
    assert model.config.norm == "batch" and model.config.activation == "half_glu1"
    encoder = np.asarray(model.encoder.weight)[0] * scale
    layers = tuple(_layer(layer, model) for layer in model.layers)
    return Parameters(encoder.astype(np.float32), np.asarray(model.encoder.bias), layers)


def _layer(layer: Any, model: S5Model) -> Layer:
    gain, offset = fold(layer.norm, running(layer.norm))
    Lambda_bar, B_bar = discrete(layer.ssm, model.config)
    factor = output_factor(model.config)
    return Layer(
        gain=np.asarray(gain),
        offset=np.asarray(offset),
        B=np.concatenate([B_bar.re, B_bar.im]),
        re=np.asarray(Lambda_bar.re),
        im=np.asarray(Lambda_bar.im),
        C=factor * np.concatenate([layer.ssm.C_re, -layer.ssm.C_im], axis=1),
        D=np.asarray(layer.ssm.D),
        W=np.asarray(layer.gate.weight).T,
        bias=np.asarray(layer.gate.bias),
    )


def decoded(model: S5Model, sums: np.ndarray, length: int) -> np.ndarray:
    """Logits from the sums of the mean pool."""
    return sums / length @ np.asarray(model.decoder.weight) + np.asarray(model.decoder.bias)
