"""inspection.json: what a report wants to know of a run's inside, collected once, beside the run.

A report (`qs5.reports.page`) imports no model. So this step, which may, leaves it as numbers: every site with its
format, range and a histogram of its values, the eigenvalues before and after quantization, sizes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from qs5.files import write_beside
from qs5.model.network import S5Model
from qs5.model.sites import Site, sites_of
from qs5.quantization.calibration import CalibrationStats
from qs5.quantization.grids import Grid, plan_from_json
from qs5.quantization.site_report import eigenvalues, saturation, weight_arrays
from qs5.quantization.spec import from_json
from qs5.training import record
from qs5.training.run import RunInfo, arithmetic_of

FILE = "inspection.json"
FORMAT = "qs5-inspection/1"
BINS, REACH = 50, 1.25
"""Histograms have so many bins over -REACH..REACH times the largest code (or value); what is beyond is in the last."""


def save_inspection(folder: Path, model: S5Model, info: RunInfo, stats: CalibrationStats) -> Path:
    """Write inspection.json into the folder of a run."""
    path = folder / FILE
    write_beside(path, (json.dumps(inspection_of(model, info, stats)) + "\n").encode())
    return path


def inspection_of(model: S5Model, info: RunInfo, stats: CalibrationStats) -> dict[str, Any]:
    """Plain JSON values."""
    spec = None if info.spec is None else from_json(info.spec)
    grids = {} if info.plan is None else dict(plan_from_json(info.plan).grids)
    weights = weight_arrays(model)
    sites = []
    for site in sites_of(model.config):
        bits = None if spec is None else spec.bits_of(site)
        if site.is_weight:
            sites.append(_weight(site, bits, weights[site.name]))
        else:
            sites.append(_activation(site, bits, stats, grids.get(site.name)))
    return {
        "format": FORMAT,
        "command": record.command_line(),
        "commit": record.commit(),
        "data": stats.data,
        "examples": stats.examples,
        "parameters": model.parameter_count,
        "sites": sites,
        "eigenvalues": [
            {"before": _pairs(before), "after": None if after is None else _pairs(after)}
            for before, after in eigenvalues(model, arithmetic_of(info, model.config))
        ],
    }


def _weight(site: Site, bits: int | None, values: np.ndarray) -> dict[str, Any]:
    largest = float(np.max(np.abs(values)))
    return _row(site, bits) | {
        "size": int(values.size),
        "largest": largest,
        "histogram": _histogram(values.reshape(-1) / (largest or 1.0)),
    }


def _activation(site: Site, bits: int | None, stats: CalibrationStats, grid: Grid | None) -> dict[str, Any]:
    seen = stats.ranges[site.name]
    largest = float(np.max(seen.largest))
    row = _row(site, bits) | {"largest": largest}
    if grid is None:
        return row | {"histogram": _histogram(seen.sample / (largest or 1.0))}
    exponents = np.asarray(grid.exponent)
    return row | {
        "exponents": [int(exponents.min()), int(exponents.max())],
        "signed": grid.format.signed,
        "saturated": saturation(seen, grid),
        "histogram": _histogram(seen.sample / (grid.step * grid.format.high)),
    }


def _row(site: Site, bits: int | None) -> dict[str, Any]:
    return {"site": site.name, "role": site.role, "shape": list(site.shape), "bits": bits}


def _histogram(fractions: np.ndarray) -> list[int]:
    """Counts of values given as fractions of the largest code, or of the largest value."""
    counts, _ = np.histogram(np.clip(fractions, -REACH, REACH), bins=BINS, range=(-REACH, REACH))
    return [int(n) for n in counts]


def _pairs(values: np.ndarray) -> list[list[float]]:
    return [[round(float(re), 6), round(float(im), 6)] for re, im in values]
