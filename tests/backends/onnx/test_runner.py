"""What the runner refuses, and what happens without the packages."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.conformance.models import random_integer_model

from qs5.backends import reference
from qs5.backends.onnx import OnnxRunner
from qs5.errors import UserError


def test_a_bidirectional_model_does_not_stream() -> None:
    runner = OnnxRunner.of(random_integer_model(0, bidirectional=True))
    assert not runner.streams
    assert runner.start(2) == {}
    with pytest.raises(UserError, match="bidirectional one, which needs the whole sequence; use logits"):
        runner.stream()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((2, 3), np.int64), r"shape \(B, L, 1\) with B, L >= 1, got \(2, 3\)"),
        (np.zeros((2, 3, 2), np.int64), r"shape \(B, L, 1\)"),
        (np.zeros((2, 0, 1), np.int64), r"shape \(B, L, 1\)"),
        (np.zeros((2, 3, 1)), r"expected integers \(uint8\), got float64"),
        (np.full((2, 3, 1), 256), "expected uint8 samples, got values of 256 to 256"),
        (np.full((2, 3, 1), -1), "expected uint8 samples, got values of -1 to -1"),
    ],
)
def test_wrong_samples_are_refused(raw: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _uint8_runner().logits(raw)


@pytest.mark.parametrize("lengths", [[3, 0], [4, 3], [3], [[3, 3]], [1.0, 2.0]])
def test_wrong_lengths_are_refused(lengths: list) -> None:
    with pytest.raises(UserError, match="expected 2 lengths of 1 to 3"):
        _uint8_runner().logits(np.zeros((2, 3, 1), np.int64), np.asarray(lengths))


@cache
def _uint8_runner() -> OnnxRunner:
    seeds = (random_integer_model(s, source="uint8", task="classification", layers=1, H=3) for s in range(99))
    return OnnxRunner.of(next(model for model in seeds if model.input.out.channels == 1))


def test_codes_and_tokens_out_of_any_type_saturate() -> None:
    for source in ("codes", "token"):
        model = random_integer_model(0, source=source, layers=1)
        shape = (2, 3, model.input.out.channels)
        for value in (-(2**40), 2**40):
            raw = np.full(shape, value)
            np.testing.assert_array_equal(OnnxRunner.of(model).logits(raw), reference.logits(model, raw))


def test_a_stream_keeps_its_batch_and_the_shapes_of_its_state() -> None:
    model = random_integer_model(0, bidirectional=False)
    stream = OnnxRunner.of(model).stream(batch=2)
    with pytest.raises(UserError, match="expected chunks of 2 sequences, got 3"):
        stream.run(np.zeros((3, 1, model.input.out.channels), np.int64))
    with pytest.raises(UserError, match="expected a state of"):
        stream.state = {name: array[:1] for name, array in stream.state.items()}


def test_a_copy_of_the_state_is_given() -> None:
    stream = OnnxRunner.of(random_integer_model(0, bidirectional=False)).stream()
    next(iter(stream.state.values()))[:] = 1
    assert not any(array.any() for array in stream.state.values())


def test_a_regression_has_no_labels() -> None:
    model = random_integer_model(0, task="regression")
    with pytest.raises(UserError, match="expected a classification model, got a regression"):
        OnnxRunner.of(model).labels(np.zeros((1, 2, model.input.out.channels), np.int64))


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    for source in (path, tmp_path / "missing.onnx", b"not a model"):
        with pytest.raises(UserError, match="expected an exported model"):
            OnnxRunner(source)


WITHOUT = """
from qs5.backends.onnx import OnnxRunner, export
from qs5.errors import UserError
from tests.conformance.models import random_integer_model
try:
    OnnxRunner.of(random_integer_model(0))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(run_python, package: str) -> None:
    message = run_python(WITHOUT, without=(package,))
    assert message.startswith(f"expected the package {package}, got ")
    assert message.strip().endswith("; pip install 'qs5[onnx]'")


def test_a_file_runs_without_jax_and_onnx(run_python, tmp_path: Path) -> None:
    from qs5.backends.onnx import export

    model = random_integer_model(0)
    export(model, tmp_path / "model.onnx")
    raw = np.zeros((1, 4, model.input.out.channels), np.int64)
    code = (
        "import numpy as np; from qs5.backends.onnx import OnnxRunner\n"
        f"print(OnnxRunner({str(tmp_path / 'model.onnx')!r}).logits(np.zeros({raw.shape}, int)).tolist())"
    )
    printed = run_python(code, without=("jax", "jaxlib", "onnx"))
    assert printed.strip() == str(reference.logits(model, raw).tolist())
