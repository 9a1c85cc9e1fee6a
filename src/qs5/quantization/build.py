"""From a spec (and its calibrated grids) to the arithmetic that computes it."""

from qs5.errors import UserError
from qs5.model.arithmetic import Arithmetic
from qs5.model.config import ModelConfig
from qs5.quantization.dynamic import DynamicArithmetic
from qs5.quantization.exact import ExactArithmetic, exact_obstacles
from qs5.quantization.grids import GridPlan
from qs5.quantization.spec import QuantSpec
from qs5.quantization.static import StaticArithmetic


def arithmetic_for_spec(spec: QuantSpec, config: ModelConfig, plan: GridPlan | None) -> Arithmetic:
    """Parallel: the paper's dynamic scales. Sequential: static grids, which need calibration first."""
    if spec.schedule == "parallel":
        return DynamicArithmetic.of(spec, config)
    if plan is None:
        raise UserError(f"spec {spec.name}: static scales need calibration; quantize a trained run first")
    return static_arithmetic(spec, config, plan)


def static_arithmetic(spec: QuantSpec, config: ModelConfig, plan: GridPlan) -> StaticArithmetic:
    """The arithmetic of a calibrated spec. Raises UserError with all reasons if `exact` is impossible."""
    bits = tuple(spec.resolve(config).items())
    if not spec.exact:
        return StaticArithmetic(spec=spec, bits=bits, plan=plan)
    if obstacles := exact_obstacles(spec, config):
        raise UserError("no exact integer forward pass: " + "; ".join(obstacles))
    return ExactArithmetic(spec=spec, bits=bits, plan=plan)
