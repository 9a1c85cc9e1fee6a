"""What needs no compiler: packed weights, buffers, names, text."""

import numpy as np
import pytest
from tests.conformance.models import random_integer_model

from qs5.backends.c99.constants import Constants, definition
from qs5.backends.c99.plan import plan_of
from qs5.backends.c99.text import Names, comment, string
from qs5.backends.c99.weights import group_of, safe_width, width_of, words_of
from qs5.integer import ops as o


def _unpacked(words: np.ndarray, rows: int, columns: int, width: int) -> np.ndarray:
    """Weights from words, field by field, as the comment in the kernels says."""
    row_words, found = 2 if width == 8 else 1, np.zeros((rows, columns), np.int64)
    groups = -(-columns // group_of(width))
    for r in range(rows):
        block, whole = r // 4 * 4, r < rows // 4 * 4
        for c in range(columns):
            g, inside = divmod(c, group_of(width))
            word, column = divmod(inside, 32 // width)
            first = block * groups * row_words + (g * 4 + r - block) * row_words
            at = (first if whole else (r * groups + g) * row_words) + word
            field = (int(words[at]) >> (column // 2 * width + 16 * (column % 2))) % 2**width
            found[r, c] = (field + 128) % 256 - 128 if width == 8 else field - 2 ** (width - 1)
    return found


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (4, 8), (6, 17), (9, 33)])
def test_words_hold_the_weights(bits: int, rows: int, columns: int, rng: np.random.Generator) -> None:
    high = max(2 ** (bits - 1) - 1, 1)
    weight = rng.integers(-high, high + 1, (rows, columns)).astype(np.int8)
    width = width_of(bits)
    words = words_of(weight, width)
    assert words.dtype == np.uint32
    assert len(words) * 32 == rows * -(-columns // group_of(width)) * group_of(width) * width
    np.testing.assert_array_equal(_unpacked(words, rows, columns, width), weight)


def test_a_narrow_width_is_given_up_where_its_accumulator_could_overflow() -> None:
    assert safe_width(4, columns=96, high=32767, bias=0) == 4
    assert safe_width(4, columns=4096, high=32767, bias=0) == 8
    assert safe_width(4, columns=96, high=127, bias=2**31 - 2**24) == 8
    assert safe_width(2, columns=4096, high=32767, bias=0) == 2


@pytest.mark.parametrize("seed", range(60))
def test_signals_that_live_at_once_do_not_share_memory(seed: int) -> None:
    """Every read finds what was written: walked op by op, with the owner of every code of working memory."""
    model = random_integer_model(seed)
    plan = plan_of(model)
    for p in plan.passes:
        owner: dict[int, str] = {}

        def write(name: str, buffers: dict[str, int] = p.buffers, owner: dict[int, str] = owner) -> None:
            for i in range(model.signals[name].channels):
                owner[buffers[name] + i] = name

        def read(name: str, buffers: dict[str, int] = p.buffers, owner: dict[int, str] = owner) -> None:
            start = buffers[name]
            assert {owner[start + i] for i in range(model.signals[name].channels)} == {name}
            assert start % 2 == 0 and start + model.signals[name].channels <= plan.work

        for name in [*([model.input.out.name] if p.quantizes else []), *p.loads]:
            if name in p.buffers:
                write(name)
        for op in p.ops:
            for name in o.inputs_of(op):
                if name in p.buffers:
                    read(name)
            if op.out.name in p.buffers:
                write(op.out.name)
        for name in p.stores:
            if name in p.buffers:
                read(name)


@pytest.mark.parametrize("seed", range(40))
def test_a_pass_loads_what_the_one_before_stored(seed: int) -> None:
    plan = plan_of(random_integer_model(seed, bidirectional=True, layers=2))
    assert len(plan.passes) == 3
    assert [p.backward for p in plan.passes] == [False, True, False]
    assert plan.passes[0].loads == {} and plan.passes[-1].stores == {}
    for before, after in zip(plan.passes, plan.passes[1:], strict=False):
        assert after.loads == before.stores


def test_names_are_different_identifiers() -> None:
    names = Names()
    texts = ["a.b", "a_b", "a b", "int", "3", "", "uint8_t", "qs5_step", "ü", "x*/", "INT64_C", "work"]
    found = [names(text) for text in texts]
    assert len(set(found)) == len(found)
    assert all(name.isidentifier() and not name.endswith("_t") for name in found)
    assert not {"int", "work", "uint8_t", "qs5_step", "INT64_C"} & set(found)
    assert [names(text) for text in texts] == found
    assert names("a", "M") != names("a.M")


def test_text_cannot_leave_its_string_or_comment() -> None:
    assert string('a"b\\c??/\n') == '"a\\"b\\\\c\\?\\?/\\012"'
    assert string("ü") == '"\\303\\274"'
    assert comment("x */ int y; /* \n z\\") == "x * / int y; / * z"


def test_equal_constants_are_stored_once() -> None:
    constants = Constants()
    assert constants.add("a", np.arange(3, dtype=np.int8)) == "a"
    assert constants.add("b", np.arange(3, dtype=np.int8)) == "a"
    assert constants.add("c", np.arange(3, dtype=np.int16)) == "c"
    assert len(constants.definitions) == 2


def test_extreme_numbers_are_valid_c() -> None:
    assert "(-2147483647 - 1)" in definition("a", np.array([-(2**31)], np.int32))
    assert "0xFFFFFFFFu" in definition("a", np.array([2**32 - 1], np.uint32))
