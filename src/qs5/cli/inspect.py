"""`qs5 inspect RUN`: the table of every site."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tyro

from qs5.cli import common
from qs5.cli.inspection import save_inspection
from qs5.cli.precision import precision_of
from qs5.errors import UserError
from qs5.model.network import S5Model
from qs5.model.sites import Site, sites_of
from qs5.quantization.calibration import CalibrationStats
from qs5.quantization.grids import Grid, plan_from_json
from qs5.quantization.site_report import saturation, weight_arrays
from qs5.quantization.spec import QuantSpec, from_json
from qs5.reports.tables import terminal
from qs5.reports.weights import mean_bits
from qs5.training import methods
from qs5.training.run import RunInfo

HEADER = ("site", "role", "shape", "bits", "scale", "range", "saturated")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Show every site of a run: shape, bits, scale rule, the range seen in the data, and how much saturates."""

    data_dir: str | None = None
    """Where the data sets are (else $QS5_DATA)."""
    examples: int = 128
    """Training sequences over which ranges are measured."""
    save: bool = False
    """Also write inspection.json into the run's folder, for `qs5 report`."""


def run(argv: list[str]) -> int:
    """Parse, measure, print."""
    name, rest = common.take_positional(argv, "qs5 inspect RUN [options]", "a run or zoo model")
    args = tyro.cli(Arguments, args=rest, prog=f"qs5 inspect {name}")
    if args.save and common.zoo.find(name):
        raise UserError(f"{name}: expected a run of your own with --save, got a zoo model; quantize it first")
    if args.examples < 1:
        raise UserError(f"expected --examples at least 1, got {args.examples}")
    model, info = common.open_run(name)
    task = common.load_for_judging(info.recipe, args.data_dir, "test")
    stats = methods.calibration_stats(model, task, examples=args.examples)
    common.console.print(terminal(f"{name}: {_title(info)}", HEADER, _rows(model, info, stats)))
    if args.save:
        common.console.print(
            f"{save_inspection(common.find_run(name), model, info, stats)} is for qs5 report", soft_wrap=True
        )
    return 0


def _title(info: RunInfo) -> str:
    if info.spec is None:
        return "float"
    spec, precision = from_json(info.spec), precision_of(info)
    bits = mean_bits(precision.weights)
    return f"{spec.name}, {spec.schedule}, {spec.range_rule} range rule: {precision.widths}; {bits:.2f} bits a weight"


def _rows(model: S5Model, info: RunInfo, stats: CalibrationStats) -> Sequence[Sequence[str]]:
    spec = None if info.spec is None else from_json(info.spec)
    grids = {} if info.plan is None else dict(plan_from_json(info.plan).grids)
    weights = weight_arrays(model)
    return [_row(site, spec, grids.get(site.name), stats, weights) for site in sites_of(model.config)]


def _row(
    site: Site,
    spec: QuantSpec | None,
    grid: Grid | None,
    stats: CalibrationStats,
    weights: dict[str, np.ndarray],
) -> tuple[str, ...]:
    bits = None if spec is None else spec.bits_of(site)
    shape = "x".join(str(n) for n in site.shape)
    if site.is_weight:
        largest, saturated = float(np.max(np.abs(weights[site.name]))), "-"
    else:
        largest = float(np.max(stats.ranges[site.name].largest))
        saturated = "-" if grid is None else f"{100 * saturation(stats.ranges[site.name], grid):.3f} %"
    scale = _scale(site, spec, bits, grid)
    return (
        site.name,
        site.role,
        shape,
        "float" if bits is None else str(bits),
        scale,
        f"{largest:.4g}",
        saturated,
    )


def _scale(site: Site, spec: QuantSpec | None, bits: int | None, grid: Grid | None) -> str:
    if spec is None or bits is None:
        return "-"
    if spec.schedule == "parallel":
        return f"dynamic, {spec.range_rule}"
    if grid is None:
        return "one" if site.role in ("a", "d") else "per output channel"
    if isinstance(grid.exponent, int):
        return f"2^{grid.exponent}"
    return f"2^{min(grid.exponent)}..2^{max(grid.exponent)}"
