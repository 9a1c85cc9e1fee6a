"""Calibration: run the float model over some data, note the ranges, choose the static grids."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from qs5.errors import DivergedError
from qs5.model.arithmetic import FloatArithmetic, Signal
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model, forward
from qs5.model.sites import Site, sites_of
from qs5.numerics.formats import QFormat
from qs5.quantization.grids import Grid, GridPlan
from qs5.quantization.spec import Observer, QuantSpec
from qs5.quantization.tap import Tapped

HEADROOM = 1.25
"""Room above the largest state and residual seen: saturating these costs far more than a fraction of a bit."""
PERCENTILE = 99.99
SAMPLED_STEPS = 48
"""About so many time steps of a sequence are kept for percentiles and rounding errors, evenly spaced; extremes
are over all steps."""


class SiteRange(NamedTuple):
    """What was seen at a site: largest magnitude of each channel, smallest value, a sample (n, channels)."""

    largest: np.ndarray
    smallest: float
    sample: np.ndarray


@dataclass(frozen=True, eq=False)
class CalibrationStats:
    """Ranges at every activation site over a calibration set of the float model."""

    ranges: dict[str, SiteRange]
    data: str
    """Identity (SHA-256) of the calibration data."""
    examples: int


@eqx.filter_jit
def record(model: S5Model, x: jax.Array, lengths: jax.Array | None) -> dict[str, tuple[jax.Array, ...]]:
    """Ranges of one batch: x real, time-major (L, B, D)."""
    seen: dict[str, tuple[jax.Array, ...]] = {}

    def note(x: Signal) -> None:
        flat = x.value.reshape(-1, x.value.shape[-1])
        strided = x.value[:: max(1, len(x.value) // SAMPLED_STEPS)] if x.value.ndim == 3 else x.value
        sample = strided.reshape(-1, x.value.shape[-1])
        seen[x.site] = (jnp.max(jnp.abs(flat), axis=0), jnp.min(flat), sample)

    forward(model, x, arithmetic=Tapped(FloatArithmetic(), note), lengths=lengths)
    return seen


def calibrate(
    model: S5Model, batches: Iterable[tuple[jax.Array, jax.Array | None]], *, data: str
) -> CalibrationStats:
    """Ranges over batches of (x real time-major (L, B, D), lengths). `data` identifies the data set.

    Padding counts: a streaming device sees those steps too. Raises DivergedError for a model that has no finite values
    on them.
    """
    merged: dict[str, SiteRange] = {}
    examples = 0
    for x, lengths in batches:
        examples += x.shape[1]
        for site, (largest, smallest, sample) in record(model, x, lengths).items():
            new = SiteRange(np.asarray(largest), float(smallest), np.asarray(sample))
            merged[site] = _merge(merged[site], new) if site in merged else new
    in_order = [site.name for site in sites_of(model.config) if site.name in merged]
    lost = next((name for name in in_order if not np.isfinite(merged[name].largest).all()), None)
    if lost is not None:
        raise DivergedError(
            f"calibration: expected finite values, got NaN or infinity from {lost} on: the training of this model "
            "diverged; train it again with lower learning rates"
        )
    return CalibrationStats(_with_copies(merged), data, examples)


def _merge(a: SiteRange, b: SiteRange) -> SiteRange:
    return SiteRange(
        np.maximum(a.largest, b.largest), min(a.smallest, b.smallest), np.concatenate([a.sample, b.sample])
    )


def _with_copies(ranges: dict[str, SiteRange]) -> dict[str, SiteRange]:
    """States as C reads them have the range of the states themselves."""
    copies = {f"{s}_out": r for s, r in ranges.items() if s.endswith((".state", ".state_reverse"))}
    return {**ranges, **copies}


def plan_grids(stats: CalibrationStats, spec: QuantSpec, config: ModelConfig) -> GridPlan:
    """The static grid of every activation site that the spec gives bits.

    One power-of-two step a site, but: the sites of the residual stream share one, so that the residual
    addition needs no shift; Bu and the states of a layer share one a mode; the copy of the state that C
    reads has one a mode. State and residual cover everything seen, with headroom; elsewhere the spec's
    observer decides.
    """
    resolved = spec.resolve(config)
    grids: dict[str, Grid] = {}
    for site in sites_of(config):
        bits = resolved[site.name]
        if not site.is_weight and bits is not None:
            grids[site.name] = _grid(site, bits, stats, spec, config)
    return GridPlan(tuple(grids.items()), stats.data, stats.examples)


def _grid(site: Site, bits: int, stats: CalibrationStats, spec: QuantSpec, config: ModelConfig) -> Grid:
    seen = stats.ranges[site.name]
    format_ = QFormat(bits, signed=not _unsigned(site.name, seen))
    if site.role == "state":
        return Grid(format_, tuple(_covering(v * HEADROOM, format_) for v in _modes_of_layer(site, stats)))
    if site.role == "residual" and site.name != "features":
        return Grid(format_, _covering(_largest_residual(stats, config) * HEADROOM, format_))
    if site.role in ("residual", "logits"):
        return Grid(format_, _covering(float(np.max(seen.largest)) * 2.0, format_))
    if site.name.endswith("_out"):
        return Grid(format_, _exponents_per_mode(seen, format_, spec.observer))
    return Grid(format_, choose_exponent(seen.sample, float(np.max(seen.largest)), format_, spec.observer))


def _unsigned(name: str, seen: SiteRange) -> bool:
    """The input where the data has no negative values, and the gate, which never has."""
    return name.endswith(".sigmoid") or (name == "input" and seen.smallest >= 0.0)


def _modes_of_layer(site: Site, stats: CalibrationStats) -> np.ndarray:
    """Largest magnitude of each mode over Bu and all states of the layer, for re and im alike, (S,)."""
    prefix = site.name.rsplit(".", 1)[0]
    names = [f"{prefix}.{kind}" for kind in ("Bu", "state", "state_reverse")]
    packed = np.max([stats.ranges[n].largest for n in names if n in stats.ranges], axis=0)
    modes = np.max(packed.reshape(2, -1), axis=0)
    return np.concatenate([modes, modes])


def _largest_residual(stats: CalibrationStats, config: ModelConfig) -> float:
    names = [s.name for s in sites_of(config) if s.role == "residual" and s.name != "features"]
    return max(float(np.max(stats.ranges[name].largest)) for name in names)


def _exponents_per_mode(seen: SiteRange, format_: QFormat, observer: Observer) -> tuple[int, ...]:
    """One exponent a mode, the same for its real and imaginary part."""
    M = len(seen.largest) // 2
    exponents = [
        choose_exponent(seen.sample[:, [m, m + M]], float(max(seen.largest[[m, m + M]])), format_, observer)
        for m in range(M)
    ]
    return tuple(exponents + exponents)


def _covering(largest: float, format_: QFormat) -> int:
    """Smallest exponent e with high 2^e >= largest."""
    if largest <= 0.0:
        return 0
    return int(np.ceil(np.log2(largest / format_.high)))


def choose_exponent(sample: np.ndarray, largest: float, format_: QFormat, observer: Observer) -> int:
    """The exponent of a power-of-two step.

    minmax:     the smallest that does not clip anything seen
    percentile: the smallest that does not clip 99.99 % of the sample
    mse:        of the minmax exponent and the four below, the one of least square error on the sample and
                the largest value (the sample may have missed it; at many bits only clipping costs anything)
    """
    if observer == "percentile":
        return _covering(float(np.percentile(np.abs(sample), PERCENTILE)) or largest, format_)
    top = _covering(largest, format_)
    if observer == "minmax":
        return top
    values = np.append(sample, np.float32(largest))
    return min(range(top, top - 5, -1), key=lambda e: _square_error(values, e, format_))


def _square_error(sample: np.ndarray, exponent: int, format_: QFormat) -> float:
    step = 2.0**exponent
    rounded = np.clip(np.floor(sample / step + 0.5), format_.low, format_.high) * step
    return float(np.mean(np.square(rounded - sample, dtype=np.float64)))
