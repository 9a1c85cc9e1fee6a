"""What a model costs: bytes and multiply-accumulates, by op."""

from dataclasses import dataclass

from qs5.integer import ops as o
from qs5.integer.model import IntegerModel
from qs5.integer.packing import packed_size


@dataclass(frozen=True, kw_only=True)
class OpCost:
    """bytes: of the constants in a file.  macs: multiply-accumulates with weights, for one step (for the ops after
    the pool: for one sequence); a complex product counts four."""

    op: o.Op
    bytes: int
    macs: int


def costs(model: IntegerModel) -> list[OpCost]:
    """One entry an op."""
    return [OpCost(op=op, bytes=constant_bytes(op), macs=macs(op)) for op in model.ops]


def constant_bytes(op: o.Op) -> int:
    """Bytes of an op's constants as a file has them."""
    total = 0
    for name, layout in o.layouts(op).items():
        array = getattr(op, name)
        bits = getattr(op, layout.width) if layout.dtype == "codes" else 8 * array.dtype.itemsize
        total += packed_size(array.size, bits)
    return total


def macs(op: o.Op) -> int:
    """Multiply-accumulates of one evaluation."""
    match op:
        case o.Dense():
            return op.inputs * op.outputs
        case o.Output():
            return op.inputs * op.outputs + op.outputs
        case o.Recurrence():
            return 4 * op.modes
        case _:
            return 0


def step_macs(model: IntegerModel) -> int:
    """Multiply-accumulates of one step, without what comes after the pool."""
    return sum(macs(op) for op in model.step_ops)
