"""Model files: what is read is what was written, and damage is reported in one line."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save
from tests.support import assert_same_bits, small_model

from qs5.model.files import ModelFileError, load_model, named_arrays, save_model

INFO = {"task": "small", "recipe": {"train": {"epochs": 3}}, "list": [1, 2.5, None, "ü"]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "model.safetensors"
    save_model(path, small_model(), info=INFO)
    return path


def read_parts(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(str(path), framework="numpy") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118


def refused(path: Path) -> str:
    """The message of the error, which is one line that starts with the path."""
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "layer", "norm_bias": False, "activation": "gelu", "head": "regression"},
        {"activation": "full_glu", "head": "retrieval", "bidirectional": True, "dropout": 0.1, "J": 2},
    ],
)
def test_what_is_read_is_what_was_written(changes: dict[str, Any], tmp_path: Path):
    model = small_model(**changes)
    save_model(tmp_path / "m.safetensors", model, info=INFO)
    stored = load_model(tmp_path / "m.safetensors")
    assert stored.info == INFO
    assert stored.model.config == model.config
    assert_same_bits(stored.model, model)


def test_arrays_are_named_by_their_place_in_the_model(file: Path):
    arrays, metadata = read_parts(file)
    model = small_model()
    np.testing.assert_array_equal(arrays["layers.1.ssm.Lambda_re"], model.layers[1].ssm.Lambda_re)
    np.testing.assert_array_equal(arrays["layers.0.norm.mean"], model.layers[0].norm.mean)
    np.testing.assert_array_equal(arrays["encoder.weight"], model.encoder.weight)
    assert arrays.keys() == named_arrays(model).keys()
    assert json.loads(metadata["config"])["H"] == 6


def test_a_missing_file_is_refused(tmp_path: Path):
    refused(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.9, -1])
def test_a_truncated_file_is_refused(file: Path, keep: float):
    data = file.read_bytes()
    file.write_bytes(data[: int(keep if keep < 0 else keep * len(data))])
    refused(file)


def test_a_file_with_more_at_its_end_is_refused(file: Path):
    file.write_bytes(file.read_bytes() + b"\0")
    refused(file)


HEADER_PLACES: dict[str, Callable[[bytes], int]] = {
    "length of the header": lambda data: 1,
    "opening brace": lambda data: 8,
    "end of the header": lambda data: struct.unpack("<Q", data[:8])[0] - 2,
    "key of the metadata": lambda data: data.index(b"__metadata__") + 3,
    "key of the configuration": lambda data: data.index(b'"config"') + 2,
    "key of the information": lambda data: data.index(b'"info"') + 2,
    "name of a field": lambda data: data.index(b"clip_eigs"),
    "value of a choice": lambda data: data.index(b"half_glu1"),
    "name of an array": lambda data: data.index(b"encoder.weight"),
    "type of an array": lambda data: data.index(b'"F32"') + 2,
    "shape of an array": lambda data: data.index(b'"shape":[') + 9,
    "place of an array": lambda data: data.index(b'"data_offsets":[') + 16,
    "format": lambda data: data.index(b"qs5-float-model"),
}


@pytest.mark.parametrize("place", HEADER_PLACES)
def test_a_flipped_byte_in_the_header_is_refused(file: Path, place: str):
    data = bytearray(file.read_bytes())
    data[HEADER_PLACES[place](bytes(data))] ^= 1
    file.write_bytes(bytes(data))
    refused(file)


def changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Some values replaced, or removed where the new one is None."""
    return {key: value for key, value in (old | new).items() if value is not None}


def rewritten(file: Path, *, arrays: dict[str, Any], metadata: dict[str, Any]) -> Path:
    old_arrays, old_metadata = read_parts(file)
    file.write_bytes(save(changed(old_arrays, arrays), metadata=changed(old_metadata, metadata)))
    return file


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"decoder.bias": None}, "arrays and configuration disagree about decoder.bias"),
        ({"decoder.scale": np.zeros(4, np.float32)}, "arrays and configuration disagree about decoder.scale"),
        (
            {"decoder.bias": np.zeros(5, np.float32)},
            "expected decoder.bias of shape (4,) float32, got (5,) float32",
        ),
        (
            {"layers.0.ssm.D": np.zeros(6, np.float16)},
            "expected layers.0.ssm.D of shape (6,) float32, got (6,) float16",
        ),
    ],
)
def test_other_arrays_than_the_configurations_are_refused(file: Path, arrays: dict[str, Any], sentence: str):
    assert sentence in refused(rewritten(file, arrays=arrays, metadata={}))


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"format": None}, "expected format qs5-float-model/1, got None; it is no qs5 float model"),
        ({"format": "qs5-integer-model/1"}, "got qs5-integer-model/1; it is no qs5 float model"),
        ({"config": None}, "KeyError('config')"),
        ({"config": "{"}, "JSONDecodeError"),
        ({"config": '{"d_in": 3, "d_out": 4, "width": 1}'}, "unexpected keyword argument 'width'"),
        ({"config": '{"d_in": 0, "d_out": 4}'}, "d_in must be at least 1, got 0"),
        ({"info": None}, "KeyError('info')"),
    ],
)
def test_other_metadata_is_refused(file: Path, metadata: dict[str, Any], sentence: str):
    assert sentence in refused(rewritten(file, arrays={}, metadata=metadata))


def test_something_else_is_refused(tmp_path: Path):
    (tmp_path / "m.safetensors").write_text("no model")
    assert "expected a qs5 model" in refused(tmp_path / "m.safetensors")
    assert "expected a qs5 model" in refused(tmp_path)


def fail(*_: object) -> None:
    raise OSError("no space left on device")


def partly(path: Path, data: bytes) -> None:
    with path.open("wb") as opened:
        opened.write(data[:100])
    fail()


@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    step: str, file: Path, monkeypatch: pytest.MonkeyPatch
):
    before = file.read_bytes()
    if step == "write":
        monkeypatch.setattr(Path, "write_bytes", partly)
    else:
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(file, small_model(seed=1), info=INFO)
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_information_that_json_cannot_hold_is_refused_before_writing(file: Path):
    before = file.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(file, small_model(seed=1), info={"array": np.zeros(2)})
    assert file.read_bytes() == before


def test_saving_again_replaces_the_file(file: Path):
    save_model(file, small_model(seed=1), info={})
    assert_same_bits(load_model(file).model, small_model(seed=1))
    assert list(file.parent.iterdir()) == [file]
