"""Numbers for the table of sites: weights by site, and how much of an activation saturates."""

import jax.numpy as jnp
import numpy as np

from qs5.model.arithmetic import Arithmetic
from qs5.model.discretize import Complex
from qs5.model.network import S5Model
from qs5.model.ssm import discrete
from qs5.quantization.calibration import SiteRange
from qs5.quantization.dynamic import DynamicArithmetic
from qs5.quantization.fake_quant import DynamicFormat, nearest
from qs5.quantization.grids import Grid
from qs5.quantization.static import StaticArithmetic, weight_site


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


def eigenvalues(model: S5Model, arithmetic: Arithmetic) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Lambda-bar of each layer, (M, 2) as (re, im), and what it is under an arithmetic; None where it stays float."""
    weights = weight_arrays(model)
    names = [f"layers.{i}.ssm.state" for i in range(model.config.layers)]
    before = {name: weights[weight_site(name)] for name in names}
    return [(pairs, _quantized(name, pairs, arithmetic)) for name, pairs in before.items()]


def _quantized(name: str, pairs: np.ndarray, arithmetic: Arithmetic) -> np.ndarray | None:
    """As the sequential recurrence has them; for the parallel scan its first factor, with a step for each part."""
    if not isinstance(arithmetic, StaticArithmetic | DynamicArithmetic):
        return None
    bits = arithmetic.bits_of(weight_site(name))
    if bits is None:
        return None
    Lambda_bar = Complex(*(jnp.asarray(pairs[:, part]) for part in (0, 1)))
    if isinstance(arithmetic, StaticArithmetic):
        return np.stack(arithmetic.eigenvalues(name, Lambda_bar), axis=-1)
    format_ = DynamicFormat(bits=bits, rule=arithmetic.spec.range_rule)
    return np.stack([nearest(part, format_) for part in Lambda_bar], axis=-1)
