"""Files of integer models (`.qs5`): safetensors with three byte arrays. SPEC.md, section 5.

hash       SHA-256 over the two others
model      JSON: spec version, description, ops with their sizes
constants  the constants of all ops, in their order

The bytes of a file follow from the model alone, so equal models have equal files. Loading trusts nothing: every
field is checked for its type and range, the constants must fill the file exactly, and the rules of `checks` hold.
"""

import dataclasses
import hashlib
import json
import math
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors, save as save_tensors

from qs5.files import write_beside
from qs5.integer import ops as o
from qs5.integer.checks import MAX_OPS, check
from qs5.integer.errors import IntegerModelError
from qs5.integer.model import SPEC_VERSION, Description, InputQuantizer, IntegerModel, Padding
from qs5.integer.packing import pack, packed_size, unpack
from qs5.integer.signals import Signal

FORMAT = "qs5-integer-model"
MAX_FILE_BYTES = 2**28
MAX_JSON_BYTES = 2**22
MAX_TEXT = 4096
MAX_ERROR = 2000
"""Characters of an error: a file may hold many mistakes."""


def to_bytes(model: IntegerModel) -> bytes:
    """The file of a model. Raises IntegerModelError when the model breaks a rule, or could not be read again."""
    check(model)
    header = json.dumps(_header(model), sort_keys=True, separators=(",", ":")).encode()
    constants = b"".join(_encode(op, name) for op in model.ops for name in o.layouts(op))
    _model(_parse(header, "integer model"), constants)
    parts = {"constants": constants, "hash": _digest(header, constants), "model": header}
    return save_tensors({name: np.frombuffer(data, np.uint8) for name, data in parts.items()})


def content_hash(model: IntegerModel) -> str:
    """SHA-256 (hex) of everything in a model."""
    return load_tensors(to_bytes(model))["hash"].tobytes().hex()


def save(path: Path, model: IntegerModel) -> None:
    """Write a model: whole, or not at all."""
    write_beside(path, to_bytes(model))


def load(path: Path) -> IntegerModel:
    """Read and check a model. Raises IntegerModelError when the file is missing, damaged or breaks SPEC.md."""
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise IntegerModelError(
                f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {size}; not a model"
            )
        data = path.read_bytes()
    except OSError as error:
        raise IntegerModelError(
            f"{path}: expected a .qs5 integer model, got {error.strerror}; make one with `qs5 lower`"
        ) from error
    except ValueError as error:  # a zero byte in a path
        raise IntegerModelError(f"{str(path)!r}: expected a path, got {error}; check its name") from error
    return from_bytes(data, source=str(path))


def from_bytes(data: bytes, *, source: str) -> IntegerModel:
    """The model of a file's bytes. `source` names it in errors."""
    header, constants = _open(data, source)
    try:
        model = _model(header, constants)
        check(model)
    except (IntegerModelError, RecursionError) as error:
        raise IntegerModelError(f"{source}: {_line(str(error))}; lower the model again") from error
    return model


def _line(text: str) -> str:
    """What a file says, fit for one line of a terminal."""
    shown = text if len(text) <= MAX_ERROR else f"{text[:MAX_ERROR]} ..."
    return "".join(c if c.isprintable() else "?" for c in shown)


def _open(data: bytes, source: str) -> tuple[dict[str, Any], bytes]:
    """JSON and constants of a file whose hash is right."""
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise IntegerModelError(
            f"{source}: expected a .qs5 integer model, got a damaged or other file ({_line(str(error))}); copy it again"
        ) from error
    parts = {name: array.tobytes() for name, array in tensors.items() if array.dtype == np.uint8}
    if set(tensors) != {"constants", "hash", "model"} or set(parts) != set(tensors):
        raise IntegerModelError(
            f"{source}: expected byte arrays constants, hash, model, got {_line(', '.join(sorted(tensors)))[:200]}; "
            "it is no integer model of qs5"
        )
    if _digest(parts["model"], parts["constants"]) != parts["hash"]:
        raise IntegerModelError(f"{source}: content and hash disagree, the file is damaged; copy it again")
    return _parse(parts["model"], source), parts["constants"]


def _parse(text: bytes, source: str) -> dict[str, Any]:
    if len(text) > MAX_JSON_BYTES:
        raise IntegerModelError(f"{source}: expected at most {MAX_JSON_BYTES} bytes of JSON, got {len(text)}")
    try:
        table = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise IntegerModelError(
            f"{source}: expected JSON, got {_line(str(error))[:200]}; copy it again"
        ) from error
    got = (table.get("format"), table.get("version")) if isinstance(table, dict) else (None, None)
    if got != (FORMAT, SPEC_VERSION) or type(got[1]) is not int:  # True == 1 == 1.0
        raise IntegerModelError(
            f"{source}: expected {FORMAT} version {SPEC_VERSION}, got {_shown(got[0])} version {_shown(got[1])}; "
            "use the version of qs5 that wrote it, or lower the model again"
        )
    return table


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are all different: of two, readers would pick different ones."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("an object with the same name twice")
    return table


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which is no JSON")


def _shown(value: Any) -> str:
    """The beginning of a JSON value, for an error."""
    return _line(str(value) if not isinstance(value, (dict, list)) else f"a {type(value).__name__}")[:40]


def _digest(header: bytes, constants: bytes) -> bytes:
    return hashlib.sha256(len(header).to_bytes(8, "little") + header + constants).digest()


# -- the JSON part ---------------------------------------------------------------------------------------------


def _header(model: IntegerModel) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": SPEC_VERSION,
        "task": model.task,
        "max_length": model.max_length,
        "input": dataclasses.asdict(model.input),
        # Left out where it says nothing: older readers can take such files.
        **({"padding": model.padding} if model.padding != "fed" else {}),
        "description": dataclasses.asdict(model.description),
        "ops": [_op_fields(op) for op in model.ops],
    }


def _op_fields(op: o.Op) -> dict[str, Any]:
    """Kind, signal (as a list, for brevity), sizes and names of an op."""
    plain = [f for f in dataclasses.fields(op) if f.init and f.name != "out" and "layout" not in f.metadata]
    signal = [getattr(op.out, f.name) for f in dataclasses.fields(Signal)]
    return {"kind": op.kind, "out": signal, **{f.name: getattr(op, f.name) for f in plain}}


def _model(table: dict[str, Any], constants: bytes) -> IntegerModel:
    table = {"padding": "fed", **table}
    _keys(
        table, {"format", "version", "task", "max_length", "input", "padding", "description", "ops"}, "model"
    )
    listed = table["ops"]
    if not isinstance(listed, list) or len(listed) > MAX_OPS:
        raise IntegerModelError(f"expected a list of at most {MAX_OPS} ops")
    reader = _Reader(constants)
    ops = tuple(_op(entry, reader) for entry in listed)
    reader.finish()
    if table["task"] not in ("classification", "regression"):
        raise IntegerModelError(
            f"expected a task of classification or regression, got {_shown(table['task'])!r}"
        )
    return IntegerModel(
        task=table["task"],
        input=_record(InputQuantizer, table["input"], "input"),
        ops=ops,
        max_length=_value(int, table["max_length"], "max_length"),
        padding=_value(Padding, table["padding"], "padding"),
        description=_record(Description, table["description"], "description"),
    )


def _op(entry: Any, reader: "_Reader") -> o.Op:
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in o.KINDS:
        raise IntegerModelError(f"expected an op of a kind of {', '.join(o.KINDS)}, got {_shown(kind)!r}")
    cls = o.KINDS[kind]
    fields = {k: v for k, v in entry.items() if k != "kind"} | {"out": _signal(entry.get("out"))}
    layouts = o.layouts(cls)
    plain = {f.name for f in dataclasses.fields(cls) if f.init} - set(layouts)
    _keys(fields, plain, cls.kind)
    hints = get_type_hints(cls)
    values = {name: _value(hints[name], fields[name], f"{cls.kind}.{name}") for name in plain}
    sized = _Sized(values)
    arrays = {name: reader.take(sized, layout) for name, layout in layouts.items()}
    fields_of_op: dict[str, Any] = {**values, **arrays}
    return cls(**fields_of_op)


def _signal(listed: Any) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(Signal)]
    if not isinstance(listed, list) or len(listed) != len(names):
        raise IntegerModelError(f"expected a signal as a list of {', '.join(names)}, got {_shown(listed)}")
    return dict(zip(names, listed, strict=True))


class _Sized:
    """The plain fields of an op as attributes, before the op exists."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


def _record(cls: type, fields: Any, where: str) -> Any:
    """A frozen dataclass from JSON, every field present and of its declared type."""
    if not isinstance(fields, dict):
        raise IntegerModelError(f"expected {where} to be a JSON object")
    hints = get_type_hints(cls)
    _keys(fields, {f.name for f in dataclasses.fields(cls)}, where)
    return cls(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in fields.items()})


def _keys(fields: dict[str, Any], expected: set[str], where: str) -> None:
    if set(fields) != expected:
        odd = sorted(set(fields) ^ expected)
        raise IntegerModelError(f"{where}: missing or unknown fields {', '.join(odd)[:200]}")


def _value(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as the declared type, or an error."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _value(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, list) and len(value) <= MAX_TEXT:
        return tuple(_value(args[0], item, where) for item in value)
    if origin is dict and isinstance(value, dict) and len(value) <= 64:
        return {_value(str, k, where): _value(str, v, where) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)  # type: ignore[arg-type]
    if kind is float and isinstance(value, (int, float)) and type(value) is not bool and abs(value) < 1e300:
        return float(value)
    if kind is int and type(value) is int and abs(value) < 2**63:
        return value
    if kind is bool and type(value) is bool:
        return value
    if kind is str and type(value) is str and len(value) <= MAX_TEXT:
        return value
    if origin is not None and str(origin).endswith("Literal") and value in args:
        return value
    raise IntegerModelError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {_shown(value)!r}")


# -- the constants ---------------------------------------------------------------------------------------------


def _encode(op: o.Op, name: str) -> bytes:
    layout, array = o.layouts(op)[name], getattr(op, name)
    if layout.dtype == "codes":
        return pack(array, getattr(op, layout.width))
    return np.ascontiguousarray(array, o.dtype_of(op, layout).newbyteorder("<")).tobytes()


class _Reader:
    """Takes constants off the front of the byte array."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, op: Any, layout: o.Layout) -> np.ndarray:
        shape = o.shape_of(op, layout)
        if any(not 0 <= n <= 2**20 for n in shape):
            raise IntegerModelError(f"expected sizes of 0 to 2^20, got {shape}")
        count = math.prod(shape)
        if count > MAX_FILE_BYTES:
            raise IntegerModelError(f"expected at most {MAX_FILE_BYTES} numbers in a constant, got {count}")
        if layout.dtype == "codes":
            bits = getattr(op, layout.width)
            if not 1 <= bits <= 8:
                raise IntegerModelError(f"expected weights of 1 to 8 bits, got {bits}")
            packed = self._bytes(packed_size(count, bits))
            if (used := count * bits % 8) and packed[-1] >> used:
                raise IntegerModelError("expected zeros in the bits behind the last weight")
            array = unpack(packed, count=count, bits=bits)
        else:
            dtype = o.dtype_of(op, layout)
            raw = self._bytes(count * dtype.itemsize)
            array = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
        array = array.reshape(shape)
        array.setflags(write=False)
        return array

    def _bytes(self, n: int) -> bytes:
        if self.at + n > len(self.data):
            raise IntegerModelError(f"expected {self.at + n} bytes of constants, got {len(self.data)}")
        self.at += n
        return self.data[self.at - n : self.at]

    def finish(self) -> None:
        if self.at != len(self.data):
            raise IntegerModelError(f"expected {self.at} bytes of constants, got {len(self.data)}")
