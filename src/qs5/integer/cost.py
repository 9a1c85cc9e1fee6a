"""What a model costs: bytes and multiply-accumulates, by op."""

from collections.abc import Mapping
from dataclasses import dataclass

from qs5.integer import ops as o
from qs5.integer.model import IntegerModel
from qs5.integer.packing import packed_size

DIRECT_BITS = 8
"""Of D as a device has it: one byte a channel, whatever its codes fill."""


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


def bit_operations(model: IntegerModel) -> int:
    """Bit operations of one step, without what comes after the pool: every multiply-accumulate counts the product of
    the widths of its operands, weight and activation; in a recurrence Lambda-bar's operands and the state.

    The usual measure of mixed precision (BOPs), for instance Van Baalen et al., "Bayesian Bits", 2020, section 4.
    """
    bits = {name: signal.bits for name, signal in model.signals.items()}
    return sum(op_bit_operations(op, bits) for op in model.step_ops)


def op_bit_operations(op: o.Op, bits: Mapping[str, int]) -> int:
    """Bit operations of one evaluation of an op between signals of the widths `bits`."""
    match op:
        case o.Dense():
            return macs(op) * op.bits * bits[op.x]
        case o.Output():
            return op.inputs * op.outputs * op.bits * bits[op.x] + op.outputs * DIRECT_BITS * bits[op.u]
        case o.Recurrence():
            return macs(op) * op.bits * bits[op.out.name]
        case _:
            return 0
