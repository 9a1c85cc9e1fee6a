"""Emitted C on the host: strict C99, no warning, no undefined behaviour, and every answer the reference's."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.conformance.models import random_integer_model, random_sequences
from tests.emitted import (
    SANITIZERS,
    assert_selftest_passes,
    compile_c,
    compiler,
    emit,
    run_program,
)
from tests.grades import graded

from qs5.backends import reference
from qs5.backends.c99 import KERNELS, engine, export
from qs5.cli.golden import golden_of
from qs5.cli.run import class_name
from qs5.errors import UserError
from qs5.integer import ops as o
from qs5.integer.model import InputQuantizer, IntegerModel
from qs5.integer.signals import Signal

LARGE = 20


@pytest.mark.parametrize("seed", graded(list(range(200)), quick=3, slow=17))
def test_random_models_equal_the_reference_under_sanitizers(seed: int, tmp_path: Path) -> None:
    model = random_integer_model(seed)
    files = emit(model, tmp_path, random_sequences(model, seed=seed))
    assert_selftest_passes(files, *SANITIZERS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(LARGE))
def test_large_random_models_equal_the_reference(seed: int, tmp_path: Path) -> None:
    model = random_integer_model(seed, H=96 + seed % 3, modes=64 + seed % 2, layers=2)
    # Beyond max_length the emitted C does not count steps.
    lengths = (1, min(200, model.max_length))
    files = emit(model, tmp_path, random_sequences(model, seed=seed, lengths=lengths))
    assert_selftest_passes(files, "-O2")


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_every_width_of_weights(bits: int, tmp_path: Path) -> None:
    model = random_integer_model(bits, weight_bits=bits, H=21, modes=9)
    assert_selftest_passes(emit(model, tmp_path, random_sequences(model, seed=bits)), "-O2")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_that_C_reads_as_they_are(bidirectional: bool, tmp_path: Path) -> None:
    """Matrix kernels read whole groups of columns: also of a state that is no whole number of them."""
    model = random_integer_model(5, direct_states=True, modes=3, weight_bits=2, bidirectional=bidirectional)
    assert any(isinstance(op, o.Output) and op.x.endswith("state") for op in model.ops)
    assert_selftest_passes(emit(model, tmp_path, random_sequences(model, seed=5)), *SANITIZERS)


def test_signals_of_16_unsigned_bits_are_not_cut(tmp_path: Path) -> None:
    model = random_integer_model(3, wide_unsigned=True, bidirectional=False, source="uint8")
    wide = [s for s in model.signals.values() if s.bits == 16 and not s.signed]
    sequences = random_sequences(model, seed=3)
    env = reference.run(model, sequences[-1][None])
    assert any(np.any(env[s.name] > 2**15 - 1) for s in wide)
    assert_selftest_passes(emit(model, tmp_path, sequences), *SANITIZERS)


def test_sums_of_more_than_32_bits(tmp_path: Path) -> None:
    """70,000 steps of the largest and the smallest code: sums that do not fit 32 bits."""
    codes = Signal(name="input", channels=2, bits=16)
    model = IntegerModel(
        task="classification",
        input=InputQuantizer(source="codes", out=codes),
        ops=(
            o.MeanPool(out=replace(codes, name="pool"), x="input"),
            o.Add(out=replace(codes, name="answer"), x="pool", y="pool", shift=2),
        ),
        max_length=2**31 - 1,
    )
    x = np.tile([codes.high, codes.low], (70_000, 1))
    assert np.max(np.abs(np.sum(x, axis=0))) > 2**31
    assert_selftest_passes(
        emit(model, tmp_path, [x]), "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"
    )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_steps_beyond_the_limit_are_defined(bidirectional: bool, tmp_path: Path) -> None:
    """A step too many is not counted; a sequence too long has no answer; the program says so."""
    random = random_integer_model(
        2, task="classification", bidirectional=bidirectional, source="codes", layers=1
    )
    mean = o.MeanPool(out=random.final_ops[0].out, x=o.inputs_of(random.final_ops[0])[0])
    model = replace(random, ops=(*random.step_ops, mean, *random.final_ops[1:]), max_length=3)
    (x,) = random_sequences(model, seed=2, lengths=(5,))
    expected = reference.logits(model, x[None, :3])[0]
    compiled = engine(model)
    if bidirectional:
        np.testing.assert_array_equal(compiled._whole(x[:3]), expected)
        np.testing.assert_array_equal(compiled._whole(x[:4]), 0 * expected)
    else:
        stream = compiled.stream()
        stream.run(x[None])
        np.testing.assert_array_equal(stream.answer()[0], expected)
        assert stream.states[0].steps == 3
    files = emit(model, tmp_path, [x[:3]])
    program = compile_c([files.main, files.source], tmp_path / "main", *SANITIZERS)
    assert run_program(program, _lines([x[:3]])).returncode == 0
    done = run_program(program, _lines([x]))
    assert done.returncode == 2 and done.stderr.endswith(
        "the sequence is too long: lower the model with a larger --max-length\n"
    )


# -- the programs ----------------------------------------------------------------------------------------------


def _lines(sequences: list[np.ndarray]) -> str:
    return "\n\n".join("\n".join(" ".join(map(str, step)) for step in s) for s in sequences) + "\n"


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_main_reads_sequences_and_prints_answers(task: str, bidirectional: bool, tmp_path: Path) -> None:
    model = random_integer_model(8, task=task, bidirectional=bidirectional, source="codes")
    sequences = random_sequences(model, seed=8)
    files = emit(model, tmp_path, sequences)
    done = run_program(
        compile_c([files.main, files.source], tmp_path / "main", *SANITIZERS), _lines(sequences)
    )
    assert done.returncode == 0, done.stderr
    answers = golden_of(model, sequences).answers
    if task == "classification":
        expected = [f"{class_name(model, int(np.argmax(a)))}\t{' '.join(str(v) for v in a)}" for a in answers]
        assert done.stdout.splitlines() == expected
    else:
        got = [[int(v) for v in line.split()] for line in done.stdout.splitlines()]
        assert got == np.concatenate(answers).tolist()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 2\n3 x\n", "line 2: expected an integer"),
        ("1 2 3\n", "line 1: too many samples"),
        ("# a comment\n1 2\n\n1\n", "line 4: too few samples"),
        ("1 256\n", "line 1: a sample is out of range"),
        ("1 99999999999999999999999999\n", "line 1: expected an integer"),
    ],
)
def test_main_refuses_what_is_no_sample(text: str, why: str, tmp_path: Path) -> None:
    seed = next(
        s
        for s in range(100)
        if random_integer_model(s, source="uint8", bidirectional=False).input.out.channels == 2
    )
    files = emit(
        model := random_integer_model(seed, source="uint8", bidirectional=False), tmp_path, [_zeros(2)]
    )
    assert model.input.out.channels == 2
    done = run_program(compile_c([files.main, files.source], tmp_path / "main"), text)
    assert (done.returncode, done.stderr.strip()) == (2, why)


def _zeros(channels: int) -> np.ndarray:
    return np.zeros((1, channels), np.int64)


def test_make_builds_everything_and_its_test_passes(tmp_path: Path) -> None:
    model = random_integer_model(5)
    emit(model, tmp_path, random_sequences(model, seed=5))
    done = subprocess.run(
        ["make", f"CC={compiler()}", "all", "test"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "ok: 4 sequences" in done.stdout


def test_selftest_fails_when_a_constant_is_changed(tmp_path: Path) -> None:
    model = random_integer_model(0, task="classification", bidirectional=False)
    files = emit(model, tmp_path, random_sequences(model, seed=0))
    text = files.source.read_text()
    bias = re.search(r"int32_t decoder_bias\w*\[\d+\] = \{\n +(-?\d+)", text)
    assert bias is not None
    files.source.write_text(text[: bias.start(1)] + str(int(bias[1]) + 10**6) + text[bias.end(1) :])
    done = run_program(compile_c([files.selftest, files.source], tmp_path / "selftest"))
    assert done.returncode == 1
    assert done.stdout.startswith("answer 0, number 0: expected ")


def test_two_models_with_prefixes_live_in_one_program(tmp_path: Path) -> None:
    sources = []
    for name in ("left", "right"):
        model = random_integer_model(len(name), bidirectional=False)
        golden = golden_of(model, random_sequences(model, seed=1))
        files = export(model, tmp_path / name, golden=golden, name=name, prefix=name)
        text = files.selftest.read_text().replace(
            "int main(void)", f"int main_{name}(void);\nint main_{name}(void)"
        )
        files.selftest.write_text(text)
        sources += [files.source, files.selftest]
    both = tmp_path / "both.c"
    both.write_text(
        "int main_left(void);\nint main_right(void);\nint main(void)\n{\n    return main_left() + main_right();\n}\n"
    )
    done = run_program(compile_c([*sources, both], tmp_path / "both"))
    assert (done.returncode, done.stdout.count("ok: ")) == (0, 2)


# -- the text --------------------------------------------------------------------------------------------------


def test_a_name_that_is_no_identifier_is_refused(tmp_path: Path) -> None:
    model = random_integer_model(1)
    with pytest.raises(UserError, match=r"expected a name of letters"):
        export(model, tmp_path, golden=golden_of(model), name="../x")
    with pytest.raises(UserError, match=r"expected a prefix of letters"):
        export(model, tmp_path, golden=golden_of(model), prefix="int")


def test_a_failed_export_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_integer_model(1)

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        export(model, tmp_path, golden=golden_of(model))
    assert list(tmp_path.iterdir()) == []


def test_emitted_text_has_no_floating_point_and_no_library(tmp_path: Path) -> None:
    model = random_integer_model(4)
    text = emit(model, tmp_path, random_sequences(model, seed=4)).source.read_text()
    code = re.sub(r"/\*.*?\*/|\"[^\"\n]*\"", " ", text, flags=re.DOTALL)
    assert not re.search(r"\b(float|double|malloc|free|memcpy|printf|\d+\.\d+)\b", code)
    assert set(re.findall(r"#include (\S+)", text)) == {"<stdint.h>", "<arm_mve.h>", '"model.h"'}


def test_kernels_are_valid_cpp_too(tmp_path: Path) -> None:
    source = tmp_path / "kernels.cpp"
    source.write_text(f'#include "{KERNELS}"\nint main() {{ return 0; }}\n')
    command = [
        compiler(),
        "-x",
        "c++",
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Werror",
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if "cc1plus" in done.stderr:
        pytest.skip("expected a C++ compiler")
    assert done.returncode == 0, done.stderr
