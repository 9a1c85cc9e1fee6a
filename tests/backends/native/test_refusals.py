"""What cannot be run is refused with a reason, in Python and once more in C."""

import re
from typing import Any

import numpy as np
import pytest
from tests.conformance.models import random_integer_model

from qs5.backends import native
from qs5.backends.native import NativeEngine
from qs5.integer.errors import IntegerModelError

SIGNAL = (4, 8, True)
INPUT = (SIGNAL, [], [], 1)
DENSE, EMBEDDING, AFFINE, RECURRENCE, SHIFT, TABLE, QGELU, ADD, MEAN_POOL = 0, 1, 2, 4, 5, 7, 8, 11, 12


def array(dtype: str, *shape: int, value: int = 1) -> np.ndarray:
    return np.full(shape, value, dtype)


def dense(**changes: Any) -> tuple[Any, ...]:
    """A 4 to 4 dense op as the C engine takes it, with one part changed."""
    parts: dict[str, Any] = {
        "reads": [0],
        "out": SIGNAL,
        "weight": array("int8", 4, 4),
        "bias": array("int32", 4),
        "M": array("int16", 4, value=2**14),
        "shift": array("uint8", 4, value=20),
    } | changes
    return DENSE, parts["reads"], parts["out"], [], [parts[x] for x in ("weight", "bias", "M", "shift")]


def build(*ops: tuple[Any, ...], source: Any = INPUT, level: str = "baseline") -> Any:
    from qs5 import _native  # pyright: ignore[reportAttributeAccessIssue]

    return _native.Engine(source, list(ops), level, False, True, False)


def test_the_unchanged_op_is_taken() -> None:
    engine = build(dense())
    records = np.zeros((1, engine.layout[0] // 8), np.int64)
    assert engine.run(array("int8", 1, 3, 4), None, records, 1, 0, None).shape == (1, 3, 4)


@pytest.mark.parametrize(
    "op",
    [
        dense(weight=array("int8", 4, 5)),
        dense(weight=array("int8", 3, 4)),
        dense(weight=array("int8", 4, 4, value=-128)),
        dense(bias=array("int32", 3)),
        dense(M=array("int16", 3, value=2**14)),
        dense(M=array("int16", 4, value=-1)),
        dense(shift=array("uint8", 4, value=0)),
        dense(shift=array("uint8", 4, value=47)),
        dense(reads=[1]),
        dense(reads=[2**31 - 1]),
        dense(reads=[-1]),
        dense(out=(2**14 + 1, 8, True)),
        dense(out=(0, 8, True)),
        dense(out=(4, 17, True)),
        (TABLE, [0], SIGNAL, [], [array("int8", 254)]),
        (TABLE, [0], (4, 4, True), [], [array("int8", 255, value=100)]),
        (AFFINE, [0], SIGNAL, [], [array("int16", 4), array("int32", 4), array("uint8", 4, value=31)]),
        (AFFINE, [0], (5, 8, True), [], [array("int16", 5), array("int32", 5), array("uint8", 5)]),
        (AFFINE, [0], SIGNAL, [], [array("int16", 4), array("int32", 4, value=2**31 - 1), array("uint8", 4)]),
        (RECURRENCE, [0], SIGNAL, [1, 31, 0], [array("int16", 2)] * 2),
        (RECURRENCE, [0], (4, 16, True), [1, 15, 0], [array("int16", 2)] * 2),
        (RECURRENCE, [0], SIGNAL, [1, 15, 0], [array("int16", 3)] * 2),
        (SHIFT, [0], SIGNAL, [], [array("int8", 2, value=16)]),
        (SHIFT, [0], (3, 8, True), [], [array("int8", 2)]),
        (EMBEDDING, [0], SIGNAL, [], [array("int8", 0)]),
        (QGELU, [0], SIGNAL, [0, 1], []),
        (ADD, [0, -1], SIGNAL, [0], []),
        (ADD, [0, 0], SIGNAL, [31], []),
        (14, [0], SIGNAL, [], []),
        (-1, [0], SIGNAL, [], []),
    ],
)
def test_the_c_engine_refuses(op: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"op 0: "):
        build(op)


def test_the_c_engine_refuses_structures() -> None:
    pool: tuple[Any, ...] = (MEAN_POOL, [0], SIGNAL, [], [])
    for ops in (
        (),
        (pool, pool),
        (pool, dense(reads=[0])),
        (pool, (SHIFT, [1], SIGNAL, [], [array("int8", 2)])),
    ):
        with pytest.raises(ValueError, match=r"op \d|4096"):
            build(*ops)
    with pytest.raises(ValueError, match="input"):
        build(dense(), source=(SIGNAL, [1, 2], [1, 2], 1))
    with pytest.raises(ValueError, match="instruction set"):
        build(dense(), level="sse9")


def test_the_c_engine_checks_what_it_is_called_with() -> None:
    engine = build(dense(), (MEAN_POOL, [1], SIGNAL, [], []))
    records = np.zeros((2, engine.layout[0] // 8), np.int64)
    raw = array("int8", 2, 3, 4)
    engine.run(raw, None, records, 1, 0, None)
    wrong: list[tuple[Any, ...]] = [
        (raw[:1], None, records, 1, 0, None),
        (np.ascontiguousarray(raw[..., :3]), None, records, 1, 0, None),
        (raw, np.asarray([1, 4]), records, 1, 0, None),
        (raw, np.asarray([-1, 2]), records, 1, 0, None),
        (raw, np.asarray([1]), records, 1, 0, None),
        (raw, None, np.zeros((2, records.shape[1] - 1), np.int64), 1, 0, None),
        (raw, None, records, 1, -1, None),
        (raw, None, records, 1, 2**40, None),
        (raw, None, records, 1, 0, np.zeros(3, np.int64)),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"expected|length"):
            engine.run(*arguments)
    with pytest.raises(TypeError):
        engine.run(raw.astype(np.float32), None, records, 1, 0, None)
    with pytest.raises(ValueError, match="at least one step"):
        engine.answer(np.zeros_like(records), None)


@pytest.mark.parametrize(
    "raw",
    [
        np.zeros((1, 5, 2), np.float32),
        np.zeros((1, 5, 3), np.uint8),
        np.zeros((5, 2), np.uint8),
        np.zeros((1, 0, 2), np.uint8),
        np.full((1, 5, 2), 256),
        np.full((1, 5, 2), -1),
    ],
)
def test_wrong_samples(raw: np.ndarray) -> None:
    model = random_integer_model(1, source="uint8")
    channels = model.input.out.channels
    if raw.ndim == 3 and raw.shape[2] == 2:
        raw = np.repeat(raw[..., :1], channels, axis=2)
    elif raw.ndim == 3:
        raw = np.repeat(raw[..., :1], channels + 1, axis=2)
    with pytest.raises(IntegerModelError, match="expected"):
        NativeEngine(model).logits(raw)


def test_a_stream_wants_its_batch() -> None:
    model = random_integer_model(1, source="uint8", bidirectional=False)
    stream = NativeEngine(model).stream(batch=2)
    for shape in ((1, 3), (3, 3)):
        with pytest.raises(IntegerModelError, match=re.escape("(2, L, ")):
            stream.run(np.zeros((*shape, model.input.out.channels), np.uint8))
    with pytest.raises(IntegerModelError, match="whole numbers"):
        stream.run(np.zeros((2, 3, model.input.out.channels)))
    with pytest.raises(IntegerModelError, match="at least 1 sequence"):
        NativeEngine(model).stream(batch=0)


def test_no_answer_before_the_first_step() -> None:
    model = random_integer_model(0, task="classification", bidirectional=False)
    with pytest.raises(ValueError, match="at least one step"):
        NativeEngine(model).stream().answer()


def test_a_bidirectional_model_cannot_be_streamed() -> None:
    with pytest.raises(IntegerModelError, match="bidirectional"):
        NativeEngine(random_integer_model(0, bidirectional=True)).stream()


# -- instruction sets --------------------------------------------------------------------------------------------


def test_the_instruction_set_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_integer_model(0)
    assert native.levels()[0] == "baseline"
    assert NativeEngine(model).level == native.levels()[-1]
    monkeypatch.setenv(native.LEVEL_VARIABLE, "baseline")
    assert NativeEngine(model).level == "baseline"
    assert NativeEngine(model, level=native.levels()[-1]).level == native.levels()[-1]
    with pytest.raises(IntegerModelError, match="expected an instruction set of baseline"):
        NativeEngine(model, level="sse9")
    with pytest.raises(IntegerModelError, match="at least 1 thread"):
        NativeEngine(model, threads=0)


def test_without_extension_there_is_a_way_on(run_python) -> None:
    code = """
import numpy as np
from qs5.backends import native
from qs5.integer.engine import engine
from tests.conformance.models import random_integer_model
model = random_integer_model(0)
print(native.available(), native.levels(), type(engine(model)).__name__)
try:
    native.engine(model)
except ValueError as error:
    print(error)
"""
    path = "import sys; sys.path.insert(0, '.')\n"
    found, reason = run_python(path + code, without=("qs5._native", "jax")).strip().split("\n")
    assert found == "False () ReferenceEngine"
    assert "use the backend reference" in reason


def test_the_engine_needs_no_jax(run_python) -> None:
    code = """
import sys
sys.path.insert(0, ".")
import numpy as np
from qs5.backends.native import NativeEngine
from tests.conformance.models import random_integer_model
model = random_integer_model(0, source="uint8")
NativeEngine(model).logits(np.zeros((1, 5, model.input.out.channels), np.uint8))
"""
    run_python(code, without=("jax", "jaxlib"))
