"""The emitted text of a tiny model, whole, in tests/golden/c99: a change of it shows in a review.

After a wanted change: QS5_UPDATE_GOLDEN=1 python -m pytest tests/backends/c99/test_golden.py
"""

import os
from pathlib import Path

import numpy as np
import pytest
from tests.emitted import STRICT, compile_c, emit, run_program

from qs5.backends.c99 import KERNELS
from qs5.integer import ops as o
from qs5.integer.model import Description, InputQuantizer, IntegerModel
from qs5.integer.signals import Signal

FOLDER = Path(__file__).parents[2] / "golden" / "c99"
FILES = ("model.c", "model.h", "main.c", "selftest.c", "Makefile")
PASTED = "/* runtime/qs5_kernels.h stands here */\n"


def tiny() -> IntegerModel:
    """Two raw channels, three features, two modes, two classes; one op of each kind that most models have."""
    wide = Signal(name="encoder", channels=3, bits=16, exponent=-8)
    u = Signal(name="layers.0.norm", channels=3, bits=8, exponent=-4)
    Bu = Signal(name="layers.0.ssm.Bu", channels=4, bits=16)
    state = Signal(name="layers.0.ssm.state", channels=4, bits=16)
    read = Signal(name="layers.0.ssm.state_out", channels=4, bits=8)
    y = Signal(name="layers.0.ssm.y", channels=3, bits=8, exponent=-4)
    residual = Signal(name="layers.0.residual", channels=3, bits=16, exponent=-8)
    pool = Signal(name="pool", channels=3, bits=16, exponent=-8)
    logits = Signal(name="decoder", channels=2, bits=16, exponent=-6)
    return IntegerModel(
        task="classification",
        input=InputQuantizer(
            source="uint8",
            out=Signal(name="input", channels=2, bits=8),
            M=(2**20, -(2**20)),
            offset=(-(2**27), 2**27),
            shift=20,
        ),
        ops=(
            _dense(wide, "input", [[100, -50], [7, 127], [-127, 3]], bits=8, bias=[10, -20, 30]),
            o.Affine(
                out=u,
                x="encoder",
                channels=3,
                M=np.array([16384, -20000, 30000], np.int16),
                offset=np.array([1 << 20, 0, -(1 << 22)], np.int32),
                shift=np.array([20, 21, 22], np.uint8),
            ),
            _dense(Bu, u.name, [[7, -7, 1], [2, 3, -4], [0, 5, -1], [6, -2, 2]], bits=4, bias=[]),
            o.Recurrence(
                out=state,
                x=Bu.name,
                modes=2,
                bits=16,
                M=1,
                shift=15,
                reverse=False,
                re=np.array([30000, 20000], np.int16),
                im=np.array([-8000, 25000], np.int16),
                exponents=np.array([-12, -13], np.int8),
            ),
            o.Shift(out=read, x=state.name, modes=2, shift=np.array([5, 6], np.int8)),
            o.Output(
                out=y,
                x=read.name,
                x_reverse=None,
                u=u.name,
                inputs=4,
                outputs=3,
                bits=2,
                C=np.array([[1, -1, 0, 1], [0, 1, 1, -1], [-1, 0, 1, 1]], np.int8),
                D=np.array([64, -32, 127], np.int8),
                D_M=np.array([16384, 16384, 16384], np.int16),
                D_shift=np.array([18, 18, 18], np.uint8),
                M=np.array([20000, 25000, 30000], np.int16),
                shift=np.array([16, 16, 16], np.uint8),
            ),
            o.Add(out=residual, x="encoder", y=y.name, shift=-3),
            o.MeanPool(out=pool, x=residual.name),
            _dense(logits, pool.name, [[90, -100, 20], [-80, 110, 5]], bits=8, bias=[500, -500]),
        ),
        max_length=1000,
        description=Description(
            task="tiny",
            spec="W8A8Abar16",
            widths="a16 b4 c2",
            classes=("yes", "no"),
            channels=("left", "right"),
            provenance={"made by": "test_golden.py"},
        ),
    )


def _dense(out: Signal, x: str, weight: list[list[int]], *, bits: int, bias: list[int]) -> o.Dense:
    W = np.array(weight, np.int8)
    return o.Dense(
        out=out,
        x=x,
        inputs=W.shape[1],
        outputs=W.shape[0],
        bits=bits,
        biases=len(bias),
        weight=W,
        bias=np.array(bias, np.int32),
        M=np.full(len(W), 20000, np.int16),
        shift=np.arange(14, 14 + len(W)).astype(np.uint8),
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is emitted now, without the kernels."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    emit(tiny(), folder, [rng.integers(0, 256, (L, 2)) for L in (1, 5)])
    found = {name: (folder / name).read_text() for name in FILES}
    assert KERNELS.read_text() in found["model.c"]
    found["model.c"] = found["model.c"].replace(KERNELS.read_text(), PASTED)
    return found


@pytest.mark.parametrize("name", FILES)
def test_emitted_text_is_the_golden_one(name: str, texts: dict[str, str]) -> None:
    if os.environ.get("QS5_UPDATE_GOLDEN") == "1":
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(texts[name])
    assert texts[name] == (FOLDER / name).read_text()


def test_golden_text_compiles_and_passes_its_own_test(tmp_path: Path) -> None:
    for name in FILES:
        text = (FOLDER / name).read_text().replace(PASTED, KERNELS.read_text())
        (tmp_path / name).write_text(text)
    assert "-Werror" in STRICT
    done = run_program(
        compile_c([tmp_path / "selftest.c", tmp_path / "model.c"], tmp_path / "selftest", "-O2")
    )
    assert done.returncode == 0, done.stdout
