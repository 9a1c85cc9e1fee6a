"""Where signals live, and in which pass over a sequence each op runs.

A model that streams has one pass: all ops, once a step. A bidirectional one needs several, which run alternately
forwards and backwards over a stored sequence: an op belongs to the first pass that has its inputs and, if it is a
recurrence, its direction. What a later pass reads is stored, a row of bytes a step. So a layer costs one pass more:
the pass of its second direction also computes its output and the first direction of the layer that follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qs5.backends.c99.weights import group_of, safe_width
from qs5.integer import ops as o
from qs5.integer.model import IntegerModel
from qs5.integer.signals import Signal

INT32 = 2**31 - 1
IN_PLACE = (o.Affine, o.LayerNorm, o.Table, o.QGelu, o.HardSigmoid, o.Multiply, o.Add, o.Shift)
"""Ops whose kernels may write where they read."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass. loads, stores: signals by their byte in the row of a step. buffers: signals by their code in `work`."""

    ops: tuple[o.Op, ...]
    backward: bool
    quantizes: bool
    """Whether the input is made from the raw sample here."""
    loads: dict[str, int]
    stores: dict[str, int]
    buffers: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is decided before text is written. work: codes of working memory. row: bytes of a step.
    pad: every array of codes is a whole number of this many, as matrix kernels read whole groups."""

    model: IntegerModel
    wide: bool
    """Codes are int32_t: some signal has 16 unsigned bits."""
    passes: tuple[Pass, ...]
    final: dict[str, int]
    """Buffers of the pool and of what follows it."""
    work: int
    row: int
    pad: int

    def padded(self, channels: int) -> int:
        """Codes of an array for that many channels."""
        return -(-channels // self.pad) * self.pad

    @property
    def code(self) -> str:
        """The type of codes."""
        return "int32_t" if self.wide else "int16_t"

    @property
    def long_sum(self) -> bool:
        """Whether a pool's sum, with half the number of steps, may need more than 32 bits."""
        m = self.model
        high = m.signals[o.inputs_of(m.final_ops[0])[0]].high
        return m.max_length * high + m.max_length // 2 > INT32


def plan_of(model: IntegerModel) -> Plan:
    """The plan of a model that keeps the rules of `checks`."""
    pad = _padding(model)
    numbers = _pass_numbers(model)
    passes = tuple(_pass(model, numbers, n, pad) for n in range(max(numbers.values(), default=0) + 1))
    final, final_size = _buffers(model.final_ops, model, pad, first=(), last={model.output.name})
    sizes = [size for _, size in passes]
    rows = [_row_size(p.stores, model) for p, _ in passes]
    return Plan(
        model=model,
        wide=any(
            s.bits == 16 and not s.signed for name, s in model.signals.items() if name != direct_token(model)
        ),
        passes=tuple(p for p, _ in passes),
        final=final,
        work=max([*sizes, final_size]),
        row=max(rows),
        pad=pad,
    )


def direct_token(model: IntegerModel) -> str | None:
    """The token signal, where only an embedding reads it: it then needs no memory."""
    name = model.input.out.name
    readers = [op for op in model.ops if name in o.inputs_of(op)]
    direct = model.input.source == "token" and all(isinstance(op, o.Embedding) for op in readers)
    return name if direct else None


def weight_width(op: o.Dense | o.Output, model: IntegerModel) -> int:
    """Bits of a weight of `op` in ROM."""
    reads = [op.x] if isinstance(op, o.Dense) or op.x_reverse is None else [op.x, op.x_reverse]
    high = max(model.signals[name].high for name in reads)
    bias = max((abs(int(b)) for b in op.bias), default=0) if isinstance(op, o.Dense) else 0
    return safe_width(op.bits, columns=op.inputs, high=high, bias=bias)


def _padding(model: IntegerModel) -> int:
    """Buffers are whole numbers of this many codes: the widest group of columns that a kernel reads."""
    matrices = [op for op in model.ops if isinstance(op, (o.Dense, o.Output))]
    return max((group_of(weight_width(op, model)) for op in matrices), default=8)


def _pass_numbers(model: IntegerModel) -> dict[str, int]:
    """The pass of every op of a step, by the signal that it writes. Even passes run forwards."""
    numbers: dict[str, int] = {}
    for op in model.step_ops:
        number = max((numbers.get(name, 0) for name in o.inputs_of(op)), default=0)
        if isinstance(op, o.Recurrence) and number % 2 != int(op.reverse):
            number += 1
        numbers[op.out.name] = number
    return numbers


def _pass(model: IntegerModel, numbers: dict[str, int], n: int, pad: int) -> tuple[Pass, int]:
    ops = tuple(op for op in model.step_ops if numbers[op.out.name] == n)
    entry = model.input.out.name
    made = {op.out.name for op in ops}
    reads = {name for op in ops for name in o.inputs_of(op)}
    loads = [name for name in numbers if name in _crossing(model, numbers, n)]
    stores = [name for name in numbers if name in _crossing(model, numbers, n + 1)]
    ends = {_taken_outside(model)} & {*made, entry}
    first = [name for name in loads if name in reads or name in stores]
    quantizes = entry in {*reads, _taken_outside(model)} and entry != direct_token(model)
    buffers, size = _buffers(
        ops, model, pad, first=[*([entry] if quantizes else []), *first], last={*stores, *ends}
    )
    result = Pass(
        ops=ops,
        backward=n % 2 == 1,
        quantizes=quantizes,
        loads=_row_offsets(loads, model),
        stores=_row_offsets(stores, model),
        buffers=buffers,
    )
    return result, size


def _taken_outside(model: IntegerModel) -> str:
    """The signal of a step that the pool, or the caller, takes."""
    return o.inputs_of(model.final_ops[0])[0] if model.final_ops else model.output.name


def _crossing(model: IntegerModel, numbers: dict[str, int], n: int) -> set[str]:
    """Signals made before pass n and read in it or later."""
    late = [op for op in model.step_ops if numbers[op.out.name] >= n]
    return {name for op in late for name in o.inputs_of(op) if numbers.get(name, n) < n}


# -- memory ----------------------------------------------------------------------------------------------------


def stored_bytes(s: Signal) -> int:
    """Bytes of a signal in the row of a step."""
    return s.channels * (1 if s.bits <= 8 else 2)


def _row_offsets(names: Sequence[str], model: IntegerModel) -> dict[str, int]:
    offsets, at = {}, 0
    for name in names:
        offsets[name] = at
        at += stored_bytes(model.signals[name])
    return offsets


def _row_size(offsets: dict[str, int], model: IntegerModel) -> int:
    return sum(stored_bytes(model.signals[name]) for name in offsets)


def _buffers(
    ops: Sequence[o.Op], model: IntegerModel, pad: int, *, first: Sequence[str], last: set[str]
) -> tuple[dict[str, int], int]:
    """First fit over lifetimes: offset of every signal in working memory, and the size of that.

    first: signals there at the start. last: signals needed after the end. The output of a recurrence is its state,
    which has memory of its own; where a later pass reads it from a row, it is a signal like any other.
    """
    size = {name: -(-s.channels // pad) * pad for name, s in model.signals.items()}
    dies = {name: i for i, op in enumerate(ops) for name in o.inputs_of(op)} | dict.fromkeys(last, len(ops))
    placed: dict[str, int] = {}
    live: dict[str, int] = {}
    for name in first:
        placed[name] = live[name] = _fit(live, size, size[name])
    for i, op in enumerate(ops):
        if not isinstance(op, o.Recurrence):
            ending = [
                x for x in o.inputs_of(op) if x in live and dies[x] == i and size[x] == size[op.out.name]
            ]
            in_place = isinstance(op, IN_PLACE) and ending
            at = live[ending[0]] if in_place else _fit(live, size, size[op.out.name])
            placed[op.out.name] = live[op.out.name] = at
        live = {name: at for name, at in live.items() if dies.get(name, -1) > i}
    return placed, max((at + size[name] for name, at in placed.items()), default=0)


def _fit(taken: dict[str, int], size: dict[str, int], wanted: int) -> int:
    at = 0
    for name in sorted(taken, key=lambda k: taken[k]):
        if at + wanted <= taken[name]:
            break
        at = max(at, taken[name] + size[name])
    return at
