"""The exported file: integers only, the checker's approval, a Scan a recurrence, metadata, and how it is written."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conformance.models import random_integer_model

from qs5.backends.onnx import OnnxRunner, export, to_onnx
from qs5.integer import ops as o
from qs5.integer.file import content_hash

INTEGERS = {
    getattr(onnx.TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
} | {onnx.TensorProto.BOOL}

STEP = ["Split", "Concat", "Mul", "Mul", "Add", "Cast", "Add", "BitShift", "Cast", "Add", "Clip", "Identity"]


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)


def not_integer(proto: onnx.ModelProto) -> list[str]:
    """Every value, constant or attribute of a type that is not whole numbers or truth values, or of no known type."""
    found = []
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    for graph in graphs_of(inferred.graph):
        types = {
            v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)
        }
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        made = [name for node in graph.node for name in node.output]
        found += [name for name in {*types, *made} if types.get(name) not in INTEGERS]
        for node in graph.node:
            found += [f"{node.name}.{a.name}" for a in node.attribute if _is_real(a)]
    return found


def _is_real(a: onnx.AttributeProto) -> bool:
    if a.type in (onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS):
        return True
    cast = a.name == "to" and a.i not in INTEGERS
    return cast or (a.type == onnx.AttributeProto.TENSOR and a.t.data_type not in INTEGERS)


@pytest.mark.parametrize("seed", range(12))
def test_there_is_no_real_number_in_the_graph(seed: int) -> None:
    assert not_integer(to_onnx(random_integer_model(seed))) == []


def test_a_real_number_in_the_graph_is_found() -> None:
    proto = to_onnx(random_integer_model(0))
    node = onnx.helper.make_node(
        "Cast", [proto.graph.output[0].name], ["real"], to=onnx.TensorProto.FLOAT, name="n"
    )
    proto.graph.node.append(node)
    assert set(not_integer(proto)) == {"real", "n.to"}


@pytest.mark.parametrize("seed", range(12))
def test_only_recurrences_are_in_a_scan(seed: int) -> None:
    model = random_integer_model(seed)
    scans = [node for node in to_onnx(model).graph.node if node.op_type == "Scan"]
    recurrences = [op for op in model.ops if isinstance(op, o.Recurrence)]
    assert len(scans) == len(recurrences)
    bodies = [next(a.g for a in node.attribute if a.name == "body") for node in scans]
    kinds = [[node.op_type for node in body.node] for body in bodies]
    assert kinds == [STEP] * len(bodies)


def test_a_file_is_checked_named_and_runs(tmp_path: Path) -> None:
    model = random_integer_model(4)
    path = tmp_path / "new" / "model.onnx"
    export(model, path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    runner = OnnxRunner(path)
    assert runner.metadata["qs5.hash"] == content_hash(model)
    assert runner.metadata["qs5.spec_version"] == "1"
    assert runner.metadata["qs5.source"] == model.input.source
    description = json.loads(runner.metadata["qs5.description"])
    assert description["provenance"] == model.description.provenance


def test_equal_models_give_equal_files() -> None:
    first, second = (to_onnx(random_integer_model(6)).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_what_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        export(random_integer_model(0), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"model.onnx": b"old"}


def test_weights_of_eight_bits_are_stored_as_bytes() -> None:
    model = random_integer_model(0, H=128, modes=128, layers=1)
    weights = sum(op.weight.size for op in model.ops if isinstance(op, o.Dense))
    weights += sum(op.C.size for op in model.ops if isinstance(op, o.Output))
    small = np.prod([len(model.ops), 2**13])
    assert to_onnx(model).ByteSize() < weights + small
