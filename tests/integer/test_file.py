"""Files: what is written is read again; whatever else a file holds is refused, in one line, soon, in little memory."""

import dataclasses
import hashlib
import json
import os
import resource
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from safetensors.numpy import load as load_tensors, save as save_tensors
from tests.conformance.models import random_integer_model, random_sequences
from tests.integer.small import change, classifier, dense, polar, regression, signal, tokens

import qs5.integer
from qs5.backends import reference
from qs5.integer import file as files, ops as o
from qs5.integer.errors import IntegerModelError
from qs5.integer.file import content_hash, from_bytes, load, save, to_bytes
from qs5.integer.model import Description, IntegerModel

GOOD = to_bytes(classifier())
SEEDS = range(12)
Table = dict[str, Any]


def parts_of(data: bytes) -> tuple[bytes, bytes]:
    """JSON and constants of a file."""
    tensors = load_tensors(data)
    return tensors["model"].tobytes(), tensors["constants"].tobytes()


def file_of(text: bytes, constants: bytes, /, **others: np.ndarray) -> bytes:
    """A file of these parts with the right hash."""
    digest = hashlib.sha256(len(text).to_bytes(8, "little") + text + constants).digest()
    named = {"constants": constants, "hash": digest, "model": text}
    return save_tensors({k: np.frombuffer(v, np.uint8) for k, v in named.items()} | others)


def table_of(data: bytes = GOOD) -> Table:
    return json.loads(parts_of(data)[0])


def dump(table: Any) -> bytes:
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode()


def with_table(table: Any) -> bytes:
    """The good file with another JSON."""
    return file_of(dump(table), parts_of(GOOD)[1])


def refusal(data: bytes, *words: str) -> str:
    """The error for a file: one line, soon, in little memory, with these words."""
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(IntegerModelError) as error:
            from_bytes(data, source="some.qs5")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(error.value)
    assert time.process_time() - started < 1.0
    assert peak < 2**24 + 40 * len(data)
    assert text.startswith("some.qs5: ")
    assert text.isprintable()
    assert len(text) < 2500
    for word in words:
        assert word in text
    return text


# -- there and back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_gives_the_same_model_and_the_same_bytes(seed: int, tmp_path: Path) -> None:
    model = random_integer_model(seed)
    save(tmp_path / "deep" / "model.qs5", model)
    again = load(tmp_path / "deep" / "model.qs5")
    assert (tmp_path / "deep" / "model.qs5").read_bytes() == to_bytes(model) == to_bytes(again)
    assert content_hash(model) == content_hash(again) == load_tensors(to_bytes(model))["hash"].tobytes().hex()
    assert (again.task, again.max_length, again.input) == (model.task, model.max_length, model.input)
    assert again.description == model.description
    for mine, theirs in zip(again.ops, model.ops, strict=True):
        assert type(mine) is type(theirs)
        for name in vars(theirs):
            a, b = getattr(mine, name), getattr(theirs, name)
            assert type(a) is type(b)
            assert np.array_equal(a, b)
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype
                assert not a.flags.writeable
    (raw,) = random_sequences(model, seed=seed, lengths=(7,))
    np.testing.assert_array_equal(reference.logits(again, raw[None]), reference.logits(model, raw[None]))


def test_the_layout_is_that_of_section_5() -> None:
    """The smallest model, byte by byte."""
    model = regression(
        [dense("input", signal("y", 2), [[1, -1], [0, 1]], bits=2, bias=[1, -2])], signal("input", 2)
    )
    text, constants = parts_of(to_bytes(model))
    weight, bias = bytes([0b11_10_01_11]), b"\x01\0\0\0\xfe\xff\xff\xff"
    assert constants == weight + bias + b"\x00\x40\x00\x40" + bytes([20, 20])
    nothing = {"classes": None, "units": None, "channels": None, "scale": [], "offset": [], "provenance": {}}
    expected = {
        "format": "qs5-integer-model",
        "version": 1,
        "task": "regression",
        "max_length": 100,
        "input": {
            "source": "codes",
            "out": {"name": "input", "channels": 2, "bits": 8, "signed": True, "exponent": -3},
            "M": [],
            "offset": [],
            "shift": 1,
        },
        "description": {"task": "", "spec": "", "widths": "", **nothing},
        "ops": [
            {
                "kind": "dense",
                "out": ["y", 2, 8, True, -3],
                "x": "input",
                "inputs": 2,
                "outputs": 2,
                "bits": 2,
                "biases": 2,
            }
        ],
    }
    assert text == dump(expected)


def test_models_that_differ_in_anything_have_different_hashes() -> None:
    model = classifier()
    (first, *_) = model.ops
    assert isinstance(first, o.Dense)
    weight = first.weight.copy()
    weight[0, 0] += 1
    others = [
        change(model, "h", weight=weight),
        change(model, "gelu", shift=8),
        IntegerModel(task=model.task, input=model.input, ops=model.ops, max_length=999),
    ]
    assert len({content_hash(m) for m in (model, *others)}) == 4


def test_loading_by_file_and_by_folder(tmp_path: Path) -> None:
    save(tmp_path / "model.qs5", classifier())
    for source in (tmp_path, str(tmp_path), tmp_path / "model.qs5"):
        assert to_bytes(qs5.integer.load(source)) == GOOD


def describe(**fields: Any) -> IntegerModel:
    model = classifier()
    return IntegerModel(
        task=model.task, input=model.input, ops=model.ops, max_length=9, description=Description(**fields)
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": (float("nan"), 1.0), "offset": (0.0, 0.0)},
        {"scale": (1.0, 1.0), "offset": (0.0, float("inf"))},
        {"task": "x" * 5000},
        {"classes": ("a" * 5000, "b", "c")},
        {"provenance": {str(i): "" for i in range(65)}},
    ],
)
def test_nothing_is_written_that_could_not_be_read(fields: dict[str, Any]) -> None:
    with pytest.raises(IntegerModelError):
        to_bytes(describe(**fields))


@pytest.mark.parametrize(("field", "count"), [("classes", 3), ("channels", 2), ("scale", 2), ("offset", 2)])
def test_names_that_are_too_few_or_too_many(field: str, count: int) -> None:
    for n in (1, count - 1, count + 1, 50):
        values = [0.5] * n if field in ("scale", "offset") else ["a"] * n
        if n != count:
            refusal(
                with_table(replaced(FULL, ("description", field), values)), f"expected {count} ", f"got {n}"
            )


def test_padding_is_stored_where_it_says_something() -> None:
    """Files of models without it are what they were before there was such a field."""
    masked = dataclasses.replace(classifier(), padding="masked")
    assert (
        "padding" not in table_of(to_bytes(classifier()))
        and table_of(to_bytes(masked))["padding"] == "masked"
    )
    assert from_bytes(to_bytes(masked), source="x").padding == "masked"
    assert from_bytes(to_bytes(classifier()), source="x").padding == "fed"
    assert "padding: expected" in refusal(with_table(table_of() | {"padding": "cut"}))


def test_a_broken_model_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(IntegerModelError, match="expected shifts"):
        save(tmp_path / "model.qs5", change(classifier(), "gate", shift=0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_failure_while_writing_leaves_the_old_file(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.qs5"
    save(path, classifier())

    def half_written(self: Path, data: bytes) -> int:
        with self.open("wb") as f:
            f.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    def no_replace(a: Any, b: Any) -> None:
        raise KeyboardInterrupt

    if failing == "write":
        monkeypatch.setattr(Path, "write_bytes", half_written)
    else:
        monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises((OSError, KeyboardInterrupt)):
        save(path, tokens())
    monkeypatch.undo()
    assert path.read_bytes() == GOOD
    assert list(tmp_path.iterdir()) == [path]


# -- damage ----------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_refused() -> None:
    for length in [*range(0, 120), *range(120, len(GOOD), 53), len(GOOD) - 1]:
        with pytest.raises(IntegerModelError, match="copy it again"):
            from_bytes(GOOD[:length], source="some.qs5")


def test_a_longer_file_is_refused() -> None:
    refusal(GOOD + b"\0")


def test_every_flipped_bit_of_the_content_is_noticed() -> None:
    """The hash covers constants, JSON and itself; of the header before them, nothing may change what is loaded."""
    start = 8 + int.from_bytes(GOOD[:8], "little")
    rng = np.random.default_rng(0)
    places = rng.choice(np.arange(start * 8, len(GOOD) * 8), 1500, replace=False)
    for at in places.tolist():
        data = bytearray(GOOD)
        data[at // 8] ^= 1 << at % 8
        with pytest.raises(IntegerModelError, match="content and hash disagree"):
            from_bytes(bytes(data), source="some.qs5")
    for at in range(start * 8):
        data = bytearray(GOOD)
        data[at // 8] ^= 1 << at % 8
        assert unharmed(bytes(data))


def unharmed(data: bytes) -> bool:
    """Whether a file is refused, or is the good model."""
    try:
        return to_bytes(from_bytes(data, source="some.qs5")) == GOOD
    except IntegerModelError:
        return True


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected a .qs5 integer model"),
        (b"{}", "expected a .qs5 integer model"),
        (b"PK\x03\x04 a zip" * 50, "expected a .qs5 integer model"),
        (bytes(8), "expected a .qs5 integer model"),
        (b"\xff" * 8, "expected a .qs5 integer model"),
        ((2**63).to_bytes(8, "little") + b"{}", "expected a .qs5 integer model"),
        ((2**40).to_bytes(8, "little") + b"{}", "expected a .qs5 integer model"),
        ((99_000_000).to_bytes(8, "little") + b"{}", "expected a .qs5 integer model"),
        ((2).to_bytes(8, "little") + b"{}", "expected byte arrays constants, hash, model"),
        (save_tensors({"model": np.zeros(3, np.uint8)}), "got model"),
        (save_tensors({"a\nb\x1b[2J": np.zeros(3, np.uint8)}), "got a?b?[2J"),
        (file_of(*parts_of(GOOD), more=np.zeros(1, np.uint8)), "got constants, hash, model, more"),
        (file_of(*parts_of(GOOD), model=np.zeros(8, np.int8)), "expected byte arrays"),
        (file_of(*parts_of(GOOD), constants=np.zeros(8, np.float32)), "expected byte arrays"),
        (file_of(*parts_of(GOOD), hash=np.zeros(31, np.uint8)), "content and hash disagree"),
        (file_of(*parts_of(GOOD), hash=np.zeros(0, np.uint8)), "content and hash disagree"),
    ],
)
def test_other_files_are_refused(data: bytes, words: str) -> None:
    refusal(data, words)


def raw_safetensors(header: str, body: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + body


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,4]}',
        '{"dtype":"U8","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}',
        '{"dtype":"U8","shape":[0,1099511627776],"data_offsets":[0,0]}',
        '{"dtype":"U8","shape":[-1],"data_offsets":[0,4]}',
        '{"dtype":"U8","shape":[4],"data_offsets":[4,0]}',
        '{"dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551615]}',
        '{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}',
        '{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}',
        '{"dtype":"Q9","shape":[4],"data_offsets":[0,4]}',
        '{"dtype":"U8","shape":[4]}',
        "[]",
        "null",
        "[" * 100_000,
    ],
)
def test_odd_safetensors_headers_are_refused(entry: str) -> None:
    refusal(raw_safetensors(f'{{"model":{entry}}}', b"\0\0\0\0"))


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.qs5", tmp_path / "none" / "model.qs5", Path("a\0b")):
        with pytest.raises(IntegerModelError) as error:
            load(path)
        assert str(error.value).isprintable()
    (tmp_path / "empty.qs5").touch()
    with pytest.raises(IntegerModelError, match=r"expected a \.qs5 integer model"):
        load(tmp_path / "empty.qs5")
    for source in (tmp_path, "no-such-model", "a\0b"):
        with pytest.raises(IntegerModelError):
            qs5.integer.load(source)


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.qs5"
    with path.open("wb") as f:
        f.truncate(2**40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IntegerModelError, match="expected at most 268435456 bytes, got 1099511627776"):
        load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # kilobytes


# -- rightly hashed, but not a model ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "expected JSON"),
        (b"{", "expected JSON"),
        (b"[]", "expected qs5-integer-model version 1"),
        (b"null", "expected qs5-integer-model version 1"),
        (b'"x"', "expected qs5-integer-model version 1"),
        (b"{}", "expected qs5-integer-model version 1, got None version None"),
        (b"\xff\xfe{}", "expected JSON"),
        (b'{"format":"\xff"}', "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "expected JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "expected JSON"),
        (b'{"version":' + b"1" * 100_000 + b"}", "expected JSON"),
        (b'{"version":NaN}', "expected JSON, got NaN"),
        (b'{"version":-Infinity}', "expected JSON, got -Infinity"),
        (b'{"version":1,"version":1}', "the same name twice"),
        (b" " * (2**22 + 1), "expected at most 4194304 bytes of JSON, got 4194305"),
    ],
    ids=lambda v: None if isinstance(v, str) else repr(v[:16]),
)
def test_other_json_is_refused(text: bytes, words: str) -> None:
    refusal(file_of(text, b""), words)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "other"),
        ("format", ["a" * 10**6]),
        ("format", "a\nb\x1b"),
        ("format", None),
        ("version", 0),
        ("version", 2),
        ("version", "1"),
        ("version", 1.0),
        ("version", True),
        ("version", [1]),
        ("version", 10**300),
    ],
)
def test_formats_and_versions_that_are_not_known(field: str, value: Any) -> None:
    refusal(with_table(table_of() | {field: value}), "expected qs5-integer-model version 1, got")


Path_ = tuple[Any, ...]


def fields_of(value: Any, at: Path_ = ()) -> list[tuple[Path_, Any]]:
    """Every value in a JSON document, with where it is."""
    children: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    below = [entry for key, child in children for entry in fields_of(child, (*at, key))]
    return [(at, value), *below]


def replaced(table: Any, at: Path_, value: Any) -> Any:
    """A copy with another value in one place."""
    if not at:
        return value
    copy = dict(table) if isinstance(table, dict) else list(table)
    copy[at[0]] = replaced(table[at[0]], at[1:], value)
    return copy


def removed(table: Any, at: Path_) -> Any:
    if len(at) == 1:
        return {k: v for k, v in table.items() if k != at[0]}
    copy = dict(table) if isinstance(table, dict) else list(table)
    copy[at[0]] = removed(table[at[0]], at[1:])
    return copy


FULL = table_of()
PLACES = fields_of(FULL)
FREE = {"provenance"}
"""Objects whose names are the writer's own."""


@pytest.mark.parametrize("kind", [*o.KINDS])
def test_every_field_must_be_there_and_no_other(kind: str) -> None:
    samples = [to_bytes(m) for m in (classifier(), tokens(), polar())]
    table, i = next(
        (t, i) for t in map(table_of, samples) for i, op in enumerate(t["ops"]) if op["kind"] == kind
    )
    for name in table["ops"][i]:
        refusal(with_table(removed(table, ("ops", i, name))))
    for name in ("extra", "weight", "__class__", "M\n"):
        if name not in table["ops"][i]:
            assert "missing or unknown fields" in refusal(
                with_table(replaced(table, ("ops", i), table["ops"][i] | {name: 1}))
            )


def test_every_field_of_the_rest_must_be_there_and_no_other() -> None:
    for at, _ in PLACES:
        if at and isinstance(at[-1], str) and at[0] != "ops" and not FREE.intersection(at[:-1]):
            refusal(with_table(removed(FULL, at)))
    for at in ((), ("input",), ("input", "out"), ("description",)):
        inner = FULL
        for key in at:
            inner = inner[key]
        refusal(with_table(replaced(FULL, at, inner | {"extra": 1})), "missing or unknown fields extra")


WRONG: list[Any] = [
    None,
    True,
    1.5,
    "text",
    [],
    {},
    [1],
    2**40,
    -1,
    -(2**63),
    10**400,
]


def test_every_field_must_be_of_its_type() -> None:
    """Each value of the JSON is replaced by values of every other type: refused, but for the few that fit."""
    for at, old in PLACES:
        for new in WRONG:
            data = with_table(replaced(FULL, at, new))
            if type(new) is type(old):
                assert_model_or_refused(data)
                continue
            if may_be_any(at):
                assert_model_or_refused(data)
            else:
                with pytest.raises(IntegerModelError):
                    from_bytes(data, source="some.qs5")


def may_be_any(at: Path_) -> bool:
    """Whether a place takes more than one type: notes, and numbers that may be whole."""
    if at[:1] == ("description",):
        return at[1:2] in (("classes",), ("units",), ("channels",), ("scale",), ("offset",))
    exponent = at[-1:] == ("exponent",) or (at[:1] == ("ops",) and at[2:] == ("out", 4))
    return exponent or at[-1:] == ("x_reverse",)


def assert_model_or_refused(data: bytes) -> None:
    """IntegerModelError, or a model that can be written and runs; nothing else."""
    try:
        model = from_bytes(data, source="some.qs5")
    except IntegerModelError as error:
        assert str(error).isprintable()
        return
    assert to_bytes(from_bytes(to_bytes(model), source="again")) == to_bytes(model)
    channels = 1 if model.input.source == "token" else model.input.out.channels
    out = reference.logits(model, np.ones((1, 3, channels), np.int64))
    assert np.all((out >= model.output.low) & (out <= model.output.high))


@pytest.mark.parametrize("size", [-1, 0, 1, 3, 2**14, 2**20, 2**20 + 1, 2**40, -(2**40), 2**62])
@pytest.mark.parametrize(
    "name", ["inputs", "outputs", "biases", "bits", "channels", "modes", "entries", "M", "shift"]
)
def test_sizes_that_do_not_fit_the_constants(name: str, size: int) -> None:
    for i, op in enumerate(FULL["ops"]):
        if name in op and op[name] != size:
            if name in ("M", "shift", "bits"):  # some of these are as good
                assert_model_or_refused(with_table(replaced(FULL, ("ops", i, name), size)))
            else:
                refusal(with_table(replaced(FULL, ("ops", i, name), size)))


def test_huge_products_of_sizes_take_no_memory() -> None:
    op = FULL["ops"][0] | {"inputs": 2**20, "outputs": 2**20, "biases": 2**20, "bits": 1}
    refusal(with_table(FULL | {"ops": [op]}), "expected at most 268435456 numbers in a constant")
    refusal(with_table(FULL | {"ops": [op | {"inputs": 2**10}] * 4000}))


def test_too_few_and_too_many_constants() -> None:
    text, constants = parts_of(GOOD)
    n = len(constants)
    for cut in (0, 1, n // 2, n - 1):
        refusal(file_of(text, constants[:cut]), "bytes of constants, got")
    refusal(file_of(text, constants + b"\0"), f"expected {n} bytes of constants, got {n + 1}")


def test_codes_that_no_format_has_are_refused() -> None:
    text, constants = parts_of(GOOD)
    assert constants[0] == (3 + 8) | (4 + 8) << 4
    refusal(file_of(text, bytes([0x00]) + constants[1:]), "weight has codes beyond 7")  # -8 of 4 bits


def test_bits_behind_the_last_weight_are_zero() -> None:
    """Else a model would have several files, and several hashes."""
    model = regression([dense("input", signal("y"), [[1]], bits=3)], signal("input"))
    text, constants = parts_of(to_bytes(model))
    assert constants[0] == 0b101
    assert to_bytes(from_bytes(file_of(text, constants), source="")) == to_bytes(model)
    for bit in range(3, 8):
        data = file_of(text, bytes([constants[0] | 1 << bit]) + constants[1:])
        refusal(data, "expected zeros in the bits behind the last weight")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t | {"ops": []}, "bytes of constants"),
        (lambda t: t | {"ops": [{"kind": "eval"}]}, "expected an op of a kind of dense, embedding, affine"),
        (lambda t: t | {"ops": [{"kind": ["dense"]}]}, "expected an op of a kind of"),
        (lambda t: t | {"ops": [{"kind": {}}]}, "expected an op of a kind of"),
        (lambda t: t | {"ops": ["dense"]}, "expected an op of a kind of"),
        (lambda t: t | {"ops": t["ops"] * 300}, "expected a list of at most 4096 ops"),
        (lambda t: t | {"ops": [None] * 4096}, "expected an op of a kind of"),
        (lambda t: t | {"ops": t["ops"] + t["ops"][:1]}, "bytes of constants"),
        (lambda t: t | {"ops": t["ops"][::-1]}, "expected"),
        (
            lambda t: t | {"task": "retrieval"},
            "expected a task of classification or regression, got 'retrieval'",
        ),
        (lambda t: t | {"task": ["a" * 10**6]}, "expected a task of"),
        (lambda t: t | {"max_length": 2**31}, "expected a maximal length"),
        (lambda t: t | {"input": t["input"] | {"source": "float32"}}, "input.source: expected"),
        (lambda t: t | {"input": t["input"] | {"M": [1] * 5000}}, "input.M: expected"),
        (
            lambda t: t | {"description": t["description"] | {"task": "x" * 5000}},
            "description.task: expected str",
        ),
        (
            lambda t: t | {"description": t["description"] | {"scale": [1e301]}},
            "description.scale: expected float",
        ),
        (lambda t: replaced(t, ("ops", 0, "x"), "a\nb\u2028c\x1b"), "h reads a?b?c?, which nothing"),
        (lambda t: replaced(t, ("ops", 0, "x"), "\ud800"), "h reads ?, which nothing"),
        (
            lambda t: replaced(t, ("ops", 0, "out"), ["h"]),
            "expected a signal as a list of name, channels, bits",
        ),
        (lambda t: replaced(t, ("ops", 0, "out"), {"name": "h"}), "expected a signal as a list"),
    ],
)
def test_contents_that_break_the_format(edit: Callable[[Table], Table], words: str) -> None:
    refusal(with_table(edit(table_of())), words)


def test_a_document_nested_just_deep_enough_to_be_parsed() -> None:
    for depth in (50, 200, 400, 600, 800, 900, 950, 980, 1000, 5000):
        nested = b"[" * depth + b"]" * depth
        for name in (b'"task"', b'"max_length"', b'"ops"', b'"version"', b'"format"'):
            text = dump(table_of())
            at = text.index(name + b":") + len(name) + 1
            end = text.index(b",", at) if name != b'"version"' else text.index(b"}", at)
            refusal(file_of(text[:at] + nested + text[end:], parts_of(GOOD)[1]))


def test_names_that_occur_twice_are_refused() -> None:
    """Readers disagree on which of the two counts."""
    text, constants = parts_of(GOOD)
    for old, new in [
        (b'"task":"classification"', b'"task":"classification","task":"classification"'),
        (b'"kind":"dense"', b'"kind":"dense","kind":"dense"'),
        (b'"commit":"0"', b'"commit":"0","commit":"1"'),
    ]:
        assert old in text
        refusal(file_of(text.replace(old, new, 1), constants), "the same name twice")


def test_a_long_list_of_mistakes_is_cut() -> None:
    name = "n" * 300
    table = table_of()
    add = next(op for op in table["ops"] if op["kind"] == "add")
    ops = [add | {"x": name, "y": name, "out": [f"s{i}", 1, 8, True, 0]} for i in range(500)]
    text = refusal(file_of(dump(table | {"ops": ops}), b""), "nothing wrote", "...")
    assert len(text) < 2500


# -- random mutations ------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([*o.KINDS, "input", "residual", "uint8", "token", "codes", "regression"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
DOCUMENTS = [
    to_bytes(m) for m in (classifier(), tokens(), polar(), random_integer_model(3), random_integer_model(4))
]
PARTS = [parts_of(data) for data in DOCUMENTS]
TREES = [(json.loads(text), fields_of(json.loads(text))) for text, _ in PARTS]


@settings(max_examples=200)
@given(st.data())
def test_random_changes_of_the_json_give_an_error_or_a_model(data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(PARTS) - 1))
    table, places = TREES[which]
    for _ in range(data.draw(st.integers(1, 3))):
        at, old = places[data.draw(st.integers(0, len(places) - 1))]
        new = data.draw(values | (st.integers(old - 2, old + 2) if type(old) is int else values))
        try:
            table = replaced(table, at, new)
        except (KeyError, IndexError, TypeError, ValueError):
            break  # an earlier change removed that place
    assert_model_or_refused(file_of(dump(table), PARTS[which][1]))


@settings(max_examples=150)
@given(st.data())
def test_random_bytes_in_the_json_give_an_error_or_a_model(data: st.DataObject) -> None:
    text, constants = PARTS[data.draw(st.integers(0, len(PARTS) - 1))]
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 6))
    new = data.draw(st.binary(max_size=6) | st.text('{}[]",:0123456789-.e', max_size=6).map(str.encode))
    assert_model_or_refused(file_of(text[:at] + new + text[at + cut :], constants))


@settings(max_examples=100)
@given(st.data())
def test_random_constants_give_an_error_or_a_model(data: st.DataObject) -> None:
    text, constants = PARTS[data.draw(st.integers(0, len(PARTS) - 1))]
    changed = bytearray(constants)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    assert_model_or_refused(file_of(text, bytes(changed)))


def test_the_limits_are_those_of_the_checks() -> None:
    assert files.MAX_JSON_BYTES < files.MAX_FILE_BYTES
