"""The native engine gives the codes of the reference on every instruction set, however a sequence is cut."""

from itertools import pairwise

import numpy as np
import pytest
from tests.conformance.models import random_integer_model, random_sequences
from tests.grades import graded

from qs5.backends import reference
from qs5.backends.native import NativeEngine, levels
from qs5.integer.model import IntegerModel

LONG = 100
"""Steps that fill several blocks of rows."""

every_level = pytest.mark.parametrize("level", levels())
some_seeds = pytest.mark.parametrize("seed", graded(list(range(240)), quick=16, slow=40))


def padded(model: IntegerModel, seed: int, lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Random sequences in one array, filled up with other random samples, and their lengths."""
    longest = max(lengths)
    filled = random_sequences(model, seed=seed + 1000, lengths=(longest,) * len(lengths))
    raw = np.stack(filled)
    for i, sequence in enumerate(random_sequences(model, seed=seed, lengths=lengths)):
        raw[i, : len(sequence)] = sequence
    return raw, np.asarray(lengths)


@some_seeds
def test_whole_sequences(seed: int) -> None:
    model = random_integer_model(seed)
    engines = [NativeEngine(model, level=x, counting=c) for x in levels() for c in (False, True)]
    engines.append(NativeEngine(model, fused=False))
    for sequence in random_sequences(model, seed=seed):
        expected = reference.logits(model, sequence[None])
        for engine in engines:
            got = engine.logits(sequence[None])
            assert got.dtype == np.int64
            np.testing.assert_array_equal(got, expected, err_msg=engine.level)


@every_level
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_wide_layers_and_many_blocks(level: str, seed: int, bidirectional: bool) -> None:
    model = random_integer_model(seed, H=97 + seed, modes=67, layers=2, bidirectional=bidirectional)
    (sequence,) = random_sequences(model, seed=seed, lengths=(LONG,))
    expected = reference.logits(model, sequence[None])
    for fused in (True, False):
        got = NativeEngine(model, level=level, fused=fused).logits(sequence[None])
        np.testing.assert_array_equal(got, expected)


@every_level
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threads", [1, 3])
def test_padded_batches(level: str, seed: int, threads: int) -> None:
    model = random_integer_model(seed, task="classification", source="codes")
    raw, lengths = padded(model, seed, (70, 1, 33, 32, 64))
    engine = NativeEngine(model, level=level, threads=threads)
    np.testing.assert_array_equal(engine.logits(raw, lengths), reference.logits(model, raw, lengths))
    np.testing.assert_array_equal(engine.logits(raw), reference.logits(model, raw))


@every_level
@pytest.mark.parametrize("seed", range(12))
def test_chunks_at_random_cuts(level: str, seed: int, rng: np.random.Generator) -> None:
    model = random_integer_model(seed, bidirectional=False)
    raw = np.stack(random_sequences(model, seed=seed, lengths=(LONG,) * 3))
    cuts = [0, *sorted(rng.integers(0, LONG, 8).tolist()), LONG]  # some chunks may be empty
    stream = NativeEngine(model, level=level, threads=2).stream(batch=3)
    parts = [stream.run(raw[:, a:b]) for a, b in pairwise(cuts)]
    expected = reference.logits(model, raw)
    if model.final_ops:
        assert parts == [None] * len(parts)
        np.testing.assert_array_equal(stream.answer(), expected)
    else:
        np.testing.assert_array_equal(np.concatenate([p for p in parts if p is not None], axis=1), expected)


@every_level
@pytest.mark.parametrize("block", [1, 2, 5, 100])
def test_rows_of_a_block_do_not_matter(level: str, block: int) -> None:
    model = random_integer_model(3, bidirectional=False, task="regression", H=100, modes=70)
    (sequence,) = random_sequences(model, seed=3, lengths=(40,))
    got = NativeEngine(model, level=level).stream().run(sequence[None], block=block)
    assert got is not None
    np.testing.assert_array_equal(got, reference.logits(model, sequence[None]))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "uint64", ">i4"])
def test_types_of_raw_samples(dtype: str, rng: np.random.Generator) -> None:
    model = random_integer_model(5, source="uint8")
    raw = rng.integers(0, 256, (2, 9, model.input.out.channels))
    expected = reference.logits(model, raw)
    # Every second one of a larger array: not contiguous.
    spread = np.repeat(raw, 2, axis=1).astype(dtype)[:, ::2]
    np.testing.assert_array_equal(NativeEngine(model).logits(spread), expected)


def test_codes_beyond_32_bits_saturate() -> None:
    model = random_integer_model(1, source="codes", bidirectional=False, task="classification")
    raw = np.asarray([[[2**40] * model.input.out.channels, [-(2**50)] * model.input.out.channels]])
    stream, expected = NativeEngine(model).stream(), reference.engine(model).stream()
    stream.run(raw)
    expected.run(raw)
    np.testing.assert_array_equal(stream.answer(), expected.answer())
