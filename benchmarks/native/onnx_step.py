"""ONNX Runtime peer: one step of the same float32 structure as a graph with its states as inputs and outputs."""

from typing import Any

import numpy as np

from benchmarks.native.parameters import LAYERS, MODES, H, Layer, Parameters

OPSET = 20
"""The first with Gelu."""


class _Graph:
    """Nodes and constants under names that count up."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name


def step_model(p: Parameters) -> bytes:
    """u (B, 1), re_i, im_i (B, M), total (B, H) -> the same states after one step. A complex state as two tensors, B
    and C each split in two, so that no node has to cut or join."""
    from onnx import TensorProto, helper

    graph = _Graph()
    x = graph.node("Gemm", "u", graph.constant(p.encoder[None]), graph.constant(p.encoder_bias))
    for i, layer in enumerate(p.layers):
        x = _layer(graph, layer, i, x)
    graph.node("Add", "total", x, output="total_next")

    def values(suffix: str) -> list[Any]:
        states = [f"{part}{i}{suffix}" for i in range(LAYERS) for part in ("re", "im")]
        shapes = [(name, MODES) for name in states] + [(f"total{suffix}", H)]
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", n]) for name, n in shapes]

    u = helper.make_tensor_value_info("u", TensorProto.FLOAT, ["B", 1])
    made = helper.make_graph(graph.nodes, "step", [u, *values("")], values("_next"), graph.constants)
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
    ).SerializeToString()


def _layer(graph: _Graph, layer: Layer, i: int, x: str) -> str:
    n = graph.node("Add", graph.node("Mul", x, graph.constant(layer.gain)), graph.constant(layer.offset))
    re, im = graph.constant(layer.re), graph.constant(layer.im)
    Bu = [graph.node("MatMul", n, graph.constant(part.T)) for part in (layer.B[:MODES], layer.B[MODES:])]
    turned = (
        graph.node("Sub", graph.node("Mul", re, f"re{i}"), graph.node("Mul", im, f"im{i}")),
        graph.node("Add", graph.node("Mul", re, f"im{i}"), graph.node("Mul", im, f"re{i}")),
    )
    state = [
        graph.node("Add", turned[j], Bu[j], output=f"{part}{i}_next") for j, part in enumerate(("re", "im"))
    ]
    Cx = [
        graph.node("MatMul", state[j], graph.constant(part.T))
        for j, part in enumerate((layer.C[:, :MODES], layer.C[:, MODES:]))
    ]
    y = graph.node("Add", graph.node("Add", *Cx), graph.node("Mul", n, graph.constant(layer.D)))
    g = graph.node("Gelu", y, approximate="tanh")
    gate = graph.node("Sigmoid", graph.node("Gemm", g, graph.constant(layer.W.T), graph.constant(layer.bias)))
    return graph.node("Add", x, graph.node("Mul", g, gate))


class OnnxStep:
    """The step graph in ONNX Runtime on one thread, called once a token."""

    def __init__(self, p: Parameters, batch: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(step_model(p), options, ["CPUExecutionProvider"])
        self._names = [f"{part}{i}" for i in range(LAYERS) for part in ("re", "im")] + ["total"]
        self.state = [np.zeros((batch, MODES), np.float32) for _ in range(2 * LAYERS)]
        self.state.append(np.zeros((batch, H), np.float32))

    def run(self, u: np.ndarray) -> None:
        """u (B, L)."""
        for k in range(u.shape[1]):
            feed = dict(zip(self._names, self.state, strict=True)) | {"u": u[:, k : k + 1]}
            self.state = self._session.run(None, feed)
