"""From a spec (and its calibrated grids) to the arithmetic that computes it."""

import dataclasses

from qs5.errors import UserError
from qs5.model.arithmetic import Arithmetic
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model
from qs5.numerics.polar import MAX_CODE_BITS, MIN_CODE_BITS, PolarCodes
from qs5.quantization.calibration import CalibrationStats, plan_grids
from qs5.quantization.dynamic import DynamicArithmetic
from qs5.quantization.exact import ExactArithmetic, exact_obstacles
from qs5.quantization.grids import GridPlan
from qs5.quantization.modes import eigenvalues, ordered
from qs5.quantization.polar_search import encode
from qs5.quantization.spec import QuantSpec
from qs5.quantization.static import StaticArithmetic


def arithmetic_for_spec(spec: QuantSpec, config: ModelConfig, plan: GridPlan | None) -> Arithmetic:
    """Parallel: the paper's dynamic scales. Sequential: static grids, which need calibration first.

    plan: from `plan_of`; parallel specs do not look at it.
    Raises UserError where a sequential spec has no plan, a polar one no codes in it, the spec does not fit the network,
    or an exact forward pass is asked for that there is none of, with every reason.
    """
    if spec.schedule == "parallel":
        return DynamicArithmetic.of(spec, config)
    if plan is None:
        raise UserError(f"spec {spec.name}: static scales need calibration; quantize a trained run first")
    return static_arithmetic(spec, config, plan)


def prepared(model: S5Model, spec: QuantSpec) -> S5Model:
    """The same function of the input, with its modes written as the spec's codes want them.

    form=polar: the M modes of every layer in the order of their angles, conjugated where those were negative
    (`modes.ordered`), so the rows of B (M, H) and the columns of C (H, M) move too; all shapes stay. form=linear: the
    model as it is. Raises UserError for form=polar with conjugates as modes of their own (conj_sym = false).
    """
    return ordered(model) if spec.form == "polar" else model


def plan_of(model: S5Model, stats: CalibrationStats, spec: QuantSpec) -> GridPlan:
    """What is fixed before the first quantized pass: grids of the activations, codes of the eigenvalues.

    model: as `prepared` gives it, and as it was calibrated. Raises UserError where the spec does not fit the network.
    """
    grids = plan_grids(stats, spec, model.config)
    return dataclasses.replace(grids, eigenvalues=eigenvalue_codes(model, spec))


def eigenvalue_codes(model: S5Model, spec: QuantSpec) -> tuple[tuple[str, PolarCodes], ...]:
    """The polar codes of every layer by the site of Lambda-bar; none with linear ones, which follow the parameters.

    Raises UserError for polar codes of a width that there is none of.
    """
    if spec.form == "linear":
        return ()
    bits = spec.resolve(model.config)
    sites = [f"layers.{i}.ssm.state.weight" for i in range(len(model.layers))]
    return tuple(
        (site, encode(eigenvalues(layer.ssm, model.config), bits=_width(bits[site], site)))
        for site, layer in zip(sites, model.layers, strict=True)
    )


def _width(bits: int | None, site: str) -> int:
    if bits is None or not MIN_CODE_BITS <= bits <= MAX_CODE_BITS:
        got = "float" if bits is None else f"{bits} bits"
        raise UserError(
            f"form=polar: expected {MIN_CODE_BITS} to {MAX_CODE_BITS} bits for {site}, got {got}; change its rule"
        )
    return bits


def static_arithmetic(spec: QuantSpec, config: ModelConfig, plan: GridPlan) -> StaticArithmetic:
    """The arithmetic of a calibrated spec.

    Raises UserError where a polar spec has no codes in its plan, the spec does not fit the network, or `exact` is
    impossible, with all reasons.
    """
    bits = tuple(spec.resolve(config).items())
    if spec.form == "polar" and not plan.eigenvalues:
        raise UserError("form=polar: expected a plan with codes of the eigenvalues; make it with `plan_of`")
    if not spec.exact:
        return StaticArithmetic(spec=spec, bits=bits, plan=plan)
    if obstacles := exact_obstacles(spec, config):
        raise UserError("no exact integer forward pass: " + "; ".join(obstacles))
    return ExactArithmetic(spec=spec, bits=bits, plan=plan)
