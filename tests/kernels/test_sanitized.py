"""The kernels' C++ on every instruction set, compiled with sanitizers: no access out of bounds, nothing undefined, and
nothing read before it was written."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.emitted import SANITIZERS

from qs5.kernels import native

KERNELS = Path(__file__).parents[2] / "native" / "kernels"
AVX512 = tuple(f"-mavx512{x}" for x in ("f", "bw", "dq", "vl"))
FLAGS = ("-std=c++17", "-ffp-contract=off", "-Wno-psabi", *SANITIZERS)
LAYERS = 48
"""Six sizes, one and two directions, float and quantized, with lengths and without."""
TREES = 6
"""The same sizes."""
LEVELS = {"baseline": (), "avx2": ("-mavx2", "-mfma"), "avx512": (*AVX512, "-mfma")}
NOT_A_NUMBER = "max_malloc_fill_size=1073741824:malloc_fill_byte=255"
"""Fresh memory is filled with bytes that make a NaN, which the program finds in the results."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not native.available(), reason="no native kernels"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instruction sets of x86"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """drive.cpp with the kernels."""
    found = shutil.which("c++") or shutil.which("g++")
    if found is None:
        pytest.skip("expected a C++ compiler (c++) on the PATH")
    folder = tmp_path_factory.mktemp("sanitized")
    common = [found, *FLAGS, f"-I{KERNELS}", "-DQS5_X86_DISPATCH", "-pthread"]
    parts = [(KERNELS / "compute.cpp", (f"-DQS5_ISA={name}", *flags)) for name, flags in LEVELS.items()]
    parts += [(KERNELS / "dispatch.cpp", ()), (Path(__file__).with_name("drive.cpp"), ())]
    objects = [str(folder / f"{i}.o") for i in range(len(parts))]
    compilers = [
        subprocess.Popen([*common, *flags, "-c", str(source), "-o", made])
        for (source, flags), made in zip(parts, objects, strict=True)
    ]
    assert [process.wait() for process in compilers] == [0] * len(compilers)
    subprocess.run([*common, "-o", str(folder / "drive"), *objects], check=True)
    return folder / "drive"


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_undefined_on_any_level(level: str, program: Path) -> None:
    environment = {**os.environ, "QS5_NATIVE_ISA": level, "ASAN_OPTIONS": NOT_A_NUMBER}
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    used = done.stdout.split(":")[0]
    if used != level:
        pytest.skip(f"this processor has {used} at most")
    assert done.stdout == f"{level}: {LAYERS} layers, {TREES} trees\n"
