"""Numbers for the table of sites: weights by site, and how much of an activation saturates."""

import jax.numpy as jnp
import numpy as np

from qs5.model.network import S5Model
from qs5.model.sites import sites_of
from qs5.model.ssm import discrete
from qs5.quantization.calibration import SiteRange
from qs5.quantization.fake_quant import DynamicFormat, nearest
from qs5.quantization.grids import Grid
from qs5.quantization.spec import QuantSpec
from qs5.quantization.weights import quantize_eigenvalues


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


def eigenvalues(model: S5Model, spec: QuantSpec | None) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Lambda-bar of each layer, (M, 2) as (re, im), and what it becomes under a spec; None where it stays float."""
    weights, found = weight_arrays(model), []
    sites = {site.name: site for site in sites_of(model.config)}
    for i in range(model.config.layers):
        name = f"layers.{i}.ssm.state.weight"
        bits = None if spec is None else spec.bits_of(sites[name])
        before = weights[name]
        found.append((before, None if spec is None or bits is None else _quantized(before, bits, spec)))
    return found


def _quantized(pairs: np.ndarray, bits: int, spec: QuantSpec) -> np.ndarray:
    """One step for both parts in the sequential schedule, one each in the parallel scan's first factor."""
    re, im = (jnp.asarray(pairs[:, part]) for part in (0, 1))
    if spec.schedule == "sequential":
        a = quantize_eigenvalues(re, im, bits=bits, rule=spec.range_rule)
        return np.stack([a.re.value, a.im.value], axis=-1)
    format_ = DynamicFormat(bits=bits, rule=spec.range_rule)
    return np.stack([nearest(re, format_), nearest(im, format_)], axis=-1)
