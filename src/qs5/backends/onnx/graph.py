"""From an `IntegerModel` to an ONNX file: one graph from raw samples to logits, with carried state in and out.

| input | type and shape | meaning |
|---|---|---|
| `raw` | raw samples (B, L, D) | uint8, int16, codes in their narrowest type, or int32 token numbers (B, L, 1) |
| `lengths` | int64 (B,) | classification: how many of each sequence's L steps count in the pool; see `qs5.padding` |
| `in/NAME` | int32 (B, 2M) | state of recurrence NAME before the first step; zeros at the start |
| `in/pool.total`, `in/pool.steps` | int64 (B, H), (B,) | mean pool: sum and number of the steps before |
| `in/pool.last` | int32 (B, H) | last pool: the last step before |

Outputs: `logits` int32 (B, classes), or (B, L, outputs) of a regression; `label` int64 (B,), the first largest logit;
and each carried tensor as `out/...`, to be fed into the next chunk. A bidirectional model needs the whole sequence:
it carries nothing, and its states start at zero. Its metadata `qs5.padding` say whether a recurrence from the
right begins at `lengths` (masked) or at L (fed).
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qs5.backends.onnx.arithmetic import rounded_divide, saturate
from qs5.backends.onnx.builder import IR_VERSION, OPSET, Builder, Dim, Value, at
from qs5.backends.onnx.ops import emit, quantize_input, recurrence
from qs5.files import write_beside
from qs5.integer import ops as o
from qs5.integer.file import content_hash
from qs5.integer.model import SPEC_VERSION, InputQuantizer, IntegerModel


def export(model: IntegerModel, path: Path) -> None:
    """Write a model as an ONNX file: beside its place and renamed, so whole or not at all."""
    write_beside(Path(path), to_onnx(model).SerializeToString())


def to_onnx(model: IntegerModel) -> Any:
    """The ModelProto of a model, checked. Raises UserError when the package onnx is missing."""
    emitter = _Emitter(model, Builder())
    emitter.run()
    b = emitter.b
    graph = b.graph("qs5", inputs=emitter.inputs, outputs=emitter.outputs)
    opsets = [b.onnx.helper.make_opsetid("", OPSET)]
    proto = b.onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="qs5")
    b.onnx.helper.set_model_props(proto, metadata(model))
    b.onnx.checker.check_model(proto, full_check=True)
    return proto


def metadata(model: IntegerModel) -> dict[str, str]:
    """What a host needs to know besides the graph: read it from the file's metadata properties."""
    return {
        "qs5.description": json.dumps(asdict(model.description), sort_keys=True),
        "qs5.hash": content_hash(model),
        "qs5.max_length": str(model.max_length),
        "qs5.padding": model.padding,
        "qs5.source": model.input.source,
        "qs5.spec_version": str(SPEC_VERSION),
        "qs5.streams": "no" if model.bidirectional else "yes",
        "qs5.task": model.task,
    }


def raw_type(q: InputQuantizer) -> str:
    """The element type of raw samples. Token numbers are int32, so that a wrong one is clipped, not wrapped."""
    types = {"uint8": "uint8", "int16": "int16", "codes": q.out.dtype.name, "token": "int32"}
    return types[q.source]


@dataclass
class _Emitter:
    """Builds the graph of one model; `inputs` and `outputs` are declared on the way."""

    model: IntegerModel
    b: Builder
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def run(self) -> None:
        """The whole graph, in the order of execution."""
        self._enter()
        for op in self.model.step_ops:
            if isinstance(op, o.Recurrence):
                self._recurrence(op)
            else:
                emit(self.b, op, self.model)
        if self.model.final_ops:
            self._finish()
        else:
            self._leave_regression()

    def _take(self, name: Value, dtype: str, shape: list[Dim]) -> Value:
        self.inputs.append(self.b.declare(name, dtype, shape))
        return name

    def _give(self, x: Value, name: Value, dtype: str, shape: list[Dim]) -> None:
        self.b.node("Identity", x, out=name)
        self.outputs.append(self.b.declare(name, dtype, shape))

    def _enter(self) -> None:
        """Raw samples to codes, (B, L, D) to (L, B, D): Scan runs over the first axis."""
        self.b.scope = "input"
        q = self.model.input
        raw = self._take("raw", raw_type(q), ["B", "L", q.out.channels])
        quantize_input(self.b, self.b.node("Transpose", raw, perm=[1, 0, 2]), q)

    def _zeros(self, shape: list[int], dtype: str) -> Value:
        """Zeros (B, *shape)."""
        b = self.b
        batch = b.node("Shape", "raw", start=0, end=1)
        whole = b.node("Concat", batch, b.constant(shape, "int64"), axis=0) if shape else batch
        zero = b.onnx.numpy_helper.from_array(np.zeros(1, dtype))
        return b.node("ConstantOfShape", whole, value=zero)

    # -- what is carried ---------------------------------------------------------------------------------------

    def _carried(self, name: str, dtype: str, shape: list[int]) -> Value:
        """A tensor (B, *shape) from the chunk before."""
        if self.model.bidirectional:
            return self._zeros(shape, dtype)
        return self._take(f"in/{name}", dtype, ["B", *shape])

    def _carry(self, x: Value, name: str, dtype: str, shape: list[int]) -> Value:
        """Hand x (B, *shape) to the next chunk."""
        if not self.model.bidirectional:
            self._give(x, f"out/{name}", dtype, ["B", *shape])
        return x

    def _recurrence(self, op: o.Recurrence) -> None:
        self.b.scope, shape = op.out.name, [2 * op.modes]
        masked = op.reverse and self.model.padding == "masked"
        kept = self._steps_kept(at(op.x)) if masked else None
        final = recurrence(self.b, op, self._carried(op.out.name, "int32", shape), kept=kept)
        self._carry(final, op.out.name, "int32", shape)

    # -- the end -----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """The pool, what follows it, and the label."""
        pool, *rest = self.model.final_ops
        self.b.scope = pool.out.name
        lengths = self._lengths()
        if isinstance(pool, o.MeanPool):
            self._mean_pool(pool, lengths)
        else:
            assert isinstance(pool, o.LastPool)
            self._last_pool(pool, lengths)
        for op in rest:
            emit(self.b, op, self.model)
        logits = at(self.model.output.name)
        self._give(logits, "logits", "int32", ["B", self.model.output.channels])
        label = self.b.node("ArgMax", logits, axis=-1, keepdims=0)
        self._give(label, "label", "int64", ["B"])

    def _leave_regression(self) -> None:
        out = self.model.output
        y = self.b.node("Transpose", at(out.name), perm=[1, 0, 2])
        self._give(y, "logits", "int32", ["B", "L", out.channels])

    def _lengths(self) -> Value:
        """The input `lengths`, which the pool reads, and with masked padding every recurrence from the right."""
        if all(declared.name != "lengths" for declared in self.inputs):
            self._take("lengths", "int64", ["B"])
        return "lengths"

    def _steps_kept(self, x: Value) -> Value:
        """Which steps of x (L, B, channels) are no padding: bool (L, B)."""
        return self.b.node("Less", self._step_numbers(x), self._lengths())

    def _step_numbers(self, x: Value) -> Value:
        """0 to L - 1, int64 (L, 1)."""
        b = self.b
        L = b.node("Squeeze", b.node("Shape", x, start=0, end=1), b.constant([0], "int64"))
        numbers = b.node("Range", b.constant(0, "int64"), L, b.constant(1, "int64"))
        return b.node("Unsqueeze", numbers, b.constant([1], "int64"))

    def _sum_where(self, condition: Value, x: Value, dtype: str) -> Value:
        """Sum over time of the steps (L, B, channels) at which the condition (L, B) holds."""
        b = self.b
        condition = b.node("Unsqueeze", condition, b.constant([2], "int64"))
        kept = b.node("Where", condition, x, b.constant(0, dtype))
        return b.node("ReduceSum", kept, b.constant([0], "int64"), keepdims=0)

    def _mean_pool(self, op: o.MeanPool, lengths: Value) -> None:
        """SPEC 4.14. Sums are int64: no length is too long for them."""
        b, x, H = self.b, at(op.x), op.out.channels
        here = self._sum_where(self._steps_kept(x), b.cast(x, "int64"), "int64")
        total = b.node("Add", self._carried("pool.total", "int64", [H]), here)
        steps = b.node("Add", self._carried("pool.steps", "int64", []), lengths)
        self._carry(total, "pool.total", "int64", [H])
        self._carry(steps, "pool.steps", "int64", [])
        # Before the first step there is no mean; 1 keeps the division defined.
        n = b.node("Unsqueeze", b.node("Max", steps, b.constant(1, "int64")), b.constant([1], "int64"))
        saturate(b, rounded_divide(b, total, n, width=64), op.out, width=64)

    def _last_pool(self, op: o.LastPool, lengths: Value) -> None:
        """SPEC 4.15. A sequence with no step in this chunk keeps the last one from before."""
        b, x, H = self.b, at(op.x), op.out.channels
        is_last = b.node("Equal", self._step_numbers(x), b.node("Sub", lengths, b.constant(1, "int64")))
        picked = self._sum_where(is_last, x, "int32")
        some = b.node(
            "Unsqueeze", b.node("Greater", lengths, b.constant(0, "int64")), b.constant([1], "int64")
        )
        last = b.node("Where", some, picked, self._carried("pool.last", "int32", [H]))
        self._carry(last, "pool.last", "int32", [H])
        saturate(b, last, op.out, width=32)
