"""`Builder`: nodes and constants of one ONNX graph, appended in order of execution."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from qs5.backends.onnx.packages import require

OPSET = 21
IR_VERSION = 10
"""Of the same age as the opset (2024), so that runtimes from then on read the file."""

Value = str
"""The name of a tensor in the graph."""
Dim = int | str | None
Numbers = np.ndarray | list[int] | int


def at(signal: str) -> Value:
    """The value that holds a signal of the model. No fresh name and no name of an input begins like it."""
    return f"signal/{signal}"


class Builder:
    """Collects what a graph is made of. Every method returns the name of a value."""

    def __init__(self, prefix: str = "node") -> None:
        self.onnx = require("onnx")
        self.prefix = prefix
        """Begins every fresh name: that of a body must not be that of the graph around it."""
        self.scope = "graph"
        """Leads the names of values, so that a viewer shows which op of the model a node belongs to."""
        self.nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Any] = {}
        self._count = 0

    def node(self, kind: str, *inputs: Value, out: Value | None = None, **attributes: Any) -> Value:
        """One node with one output."""
        (value,) = self.nodes_of(kind, inputs, [out or self.fresh(kind)], **attributes)
        return value

    def nodes_of(
        self, kind: str, inputs: Iterable[Value], outputs: Iterable[Value], **attributes: Any
    ) -> list[Value]:
        """One node with the outputs named."""
        outputs = list(outputs)
        made = self.onnx.helper.make_node(kind, list(inputs), outputs, name=self.fresh(kind), **attributes)
        self.nodes.append(made)
        return outputs

    def fresh(self, what: str) -> Value:
        """A name that nothing has yet."""
        self._count += 1
        return f"{self.prefix}/{self.scope}/{what}_{self._count}"

    def constant(self, values: Numbers, dtype: str) -> Value:
        """A constant of an integer type, stored once however often it is asked for."""
        array = np.asarray(values)
        limits = np.iinfo(dtype)
        if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
            raise ValueError(f"expected constants within {dtype}, got {array.min()} to {array.max()}")
        array = np.ascontiguousarray(array.astype(dtype)).reshape(array.shape)
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.onnx.numpy_helper.from_array(array, self.fresh("constant"))
        return self._constants[key].name

    def cast(self, x: Value, dtype: str) -> Value:
        """To another integer type. ONNX keeps the lowest bits of what does not fit, and so does two's complement."""
        return self.node("Cast", x, to=self.element(dtype))

    def element(self, dtype: str) -> int:
        """ONNX's number of an element type."""
        return self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def declare(self, name: Value, dtype: str, shape: Iterable[Dim]) -> Any:
        """Name, type and shape of an input or output."""
        return self.onnx.helper.make_tensor_value_info(name, self.element(dtype), list(shape))

    def graph(self, name: str, *, inputs: list[Any], outputs: list[Any]) -> Any:
        """What has been collected, as a GraphProto."""
        constants = list(self._constants.values())
        return self.onnx.helper.make_graph(self.nodes, name, inputs, outputs, constants)
