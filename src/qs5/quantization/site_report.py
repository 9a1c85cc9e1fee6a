"""Numbers for the table of sites: weights by site, and how much of an activation saturates."""

import numpy as np

from qs5.model.network import S5Model
from qs5.model.ssm import discrete
from qs5.quantization.calibration import SiteRange
from qs5.quantization.grids import Grid


def weight_arrays(model: S5Model) -> dict[str, np.ndarray]:
    """The real values of every weight site, complex ones with a last axis (re, im)."""
    arrays = {"encoder.weight": model.encoder.weight, "decoder.weight": model.decoder.weight}
    if model.hidden is not None:
        arrays["hidden.weight"] = model.hidden.weight
    found = {name: np.asarray(a) for name, a in arrays.items()}
    for i in range(model.config.layers):
        found |= _layer_arrays(model, i)
    return found


def _layer_arrays(model: S5Model, i: int) -> dict[str, np.ndarray]:
    layer, name = model.layers[i], f"layers.{i}"
    Lambda_bar, B_bar = discrete(layer.ssm, model.config)
    found = {
        f"{name}.ssm.Bu.weight": np.stack(B_bar, axis=-1),
        f"{name}.ssm.state.weight": np.stack(Lambda_bar, axis=-1),
        f"{name}.ssm.y.C": np.stack((layer.ssm.C_re, layer.ssm.C_im), axis=-1),
        f"{name}.ssm.y.D": np.asarray(layer.ssm.D),
    }
    dense = {"gate": layer.gate, "value": layer.value}
    return found | {f"{name}.{k}.weight": np.asarray(d.weight) for k, d in dense.items() if d is not None}


def saturation(seen: SiteRange, grid: Grid) -> float:
    """Fraction of the sampled values that lie beyond the last code of the grid by more than half a step."""
    top = (grid.format.high + 0.5) * grid.step
    bottom = (grid.format.low - 0.5) * grid.step
    return float(np.mean((seen.sample > top) | (seen.sample < bottom)))
