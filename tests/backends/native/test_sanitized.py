"""The engine's C on every instruction set, compiled with sanitizers: no access out of bounds, nothing undefined."""

import platform
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.conformance.models import random_integer_model, random_sequences
from tests.emitted import SANITIZERS, compiler

from qs5.backends import native, reference
from qs5.integer.model import IntegerModel

ENGINE = Path(__file__).parents[3] / "native" / "engine"
TYPES = {"int8": 0, "uint8": 1, "int16": 2, "uint16": 3, "int32": 4}
"""`qs5_type` of engine.h."""
AVX512 = tuple(f"-mavx512{x}" for x in ("f", "bw", "dq", "vl", "vnni", "vbmi"))
STEPS, SEQUENCES = 23, 2
MODELS = 40

pytestmark = pytest.mark.slow


def parts() -> Sequence[tuple[str, tuple[str, ...]]]:
    """Sources and their flags, as native/engine/CMakeLists.txt has them."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    dispatch = ("-DQS5_X86_DISPATCH",) if x86 else ()
    every: list[tuple[str, tuple[str, ...]]] = [("portable.c", ("-DQS5_ISA=baseline",))]
    every += [(name, dispatch) for name in ("build.c", "constants.c", "fuse.c", "line_up.c", "run.c")]
    if x86:
        every += [("portable.c", ("-DQS5_ISA=avx2", "-mavx2")), ("portable.c", ("-DQS5_ISA=avx512", *AVX512))]
        every += [(path.name, AVX512) for path in sorted(ENGINE.glob("vnni*.c"))]
    return every


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """drive.c with the engine."""
    folder = tmp_path_factory.mktemp("sanitized")
    common = [compiler(), "-std=c99", *SANITIZERS, f"-I{ENGINE}"]
    objects = []
    for i, (source, flags) in enumerate([*parts(), (str(Path(__file__).with_name("drive.c")), ())]):
        objects.append(folder / f"{i}.o")
        subprocess.run([*common, *flags, "-c", str(ENGINE / source), "-o", str(objects[-1])], check=True)
    subprocess.run([*common, "-o", str(folder / "drive"), *map(str, objects)], check=True)
    return folder / "drive"


def written(model: IntegerModel, raw: np.ndarray, expected: np.ndarray) -> bytes:
    """The file that drive.c reads."""

    def ints(*values: int) -> bytes:
        return struct.pack(f"<{len(values)}i", *(int(v) for v in values))

    signal, M, offset, shift = native._input(model.input)
    found = ints(*signal, len(M), shift) + np.array([*M, *offset], "<i8").tobytes()
    ops = native._ops(model)
    found += ints(len(ops))
    for kind, reads, out, numbers, arrays in ops:
        found += ints(kind, *(reads + [-1] * 3)[:3], *out, *(numbers + [0] * 3)[:3], len(arrays))
        for array in arrays:
            found += ints(TYPES[array.dtype.name], array.size) + array.tobytes()
    codes = np.clip(raw, -(2**31), 2**31 - 1).astype("<i4")
    return (
        found
        + ints(*raw.shape[:2])
        + codes.tobytes()
        + ints(expected.size)
        + expected.astype("<i4").tobytes()
    )


@pytest.mark.parametrize("seed", range(MODELS))
def test_nothing_undefined_on_any_level(seed: int, program: Path, tmp_path: Path) -> None:
    sizes = {"H": 96 + seed % 3, "modes": 64 + seed % 5, "layers": 2} if seed % 4 == 0 else {}
    model = random_integer_model(seed, **sizes)
    raw = np.stack(random_sequences(model, seed=seed, lengths=(STEPS,) * SEQUENCES))
    (tmp_path / "model").write_bytes(written(model, raw, reference.logits(model, raw)))
    done = subprocess.run(
        [str(program), str(tmp_path / "model")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    levels = len(native.levels())
    assert done.stdout == f"ok: {levels * 3 * (1 if model.bidirectional else 3)} runs\n"
