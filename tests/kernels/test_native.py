"""The extension: turned off, missing, and every instruction set that this processor has."""

import pytest
from tests.grades import graded

from qs5.kernels import native

COMPARE = """
import jax, jax.numpy as jnp, numpy as np
from qs5.kernels import native
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.network import forward
from qs5.model.recurrence import scan_sequential
from tests.support import small_inputs, small_model
model, x = small_model(layers=1, H=21, P=18, **changes), jnp.swapaxes(small_inputs(B=3, L=11), 0, 1)
lengths = jnp.asarray([11, 1, 6]) if model.config.padding == "masked" else None
def probe(arithmetic):
    def loss(model):
        out = forward(model, x, arithmetic=arithmetic, lengths=lengths, key=jax.random.key(0), batch_stats=True)
        return jnp.sum(jnp.sin(out.value))
    return jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(model))
pairs = zip(probe(FloatArithmetic()), probe(FloatArithmetic(scan_sequential)))
print(native.instruction_set(), max(float(jnp.max(jnp.abs(a - b)) / (1e-3 + jnp.max(jnp.abs(b)))) for a, b in pairs))
"""
TOLERANCE = 2e-5
"""As in test_layer.py."""


@pytest.mark.skipif(not native.available(), reason="no native kernels")
@pytest.mark.parametrize("wanted", ["baseline", "avx2"])
@pytest.mark.parametrize(
    "changes",
    graded([{"bidirectional": True, "padding": "masked", "head": "regression"}, {}], quick=1, slow=1),
    ids=["masked", ""],
)
def test_every_instruction_set_gives_the_layer(changes: dict, wanted: str, run_python, monkeypatch) -> None:
    monkeypatch.setenv("QS5_NATIVE_ISA", wanted)
    used, error = run_python(f"changes = {changes}\n{COMPARE}").split()
    if used != wanted and wanted != "baseline":
        pytest.skip(f"no {wanted} here, got {used}")
    assert used == wanted
    assert float(error) < TOLERANCE


def test_turned_off_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "0")
    assert not native.available()
    assert native.instruction_set() is None


def test_a_missing_extension_is_said_once(run_python, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.VARIABLE, raising=False)
    code = (
        "import contextlib, io; from qs5.kernels import native; out = io.StringIO()\n"
        "with contextlib.redirect_stderr(out): assert not native.available() and not native.available()\n"
        "print(out.getvalue().count('without the native kernels'))"
    )
    assert run_python(code, without=("qs5._native",)).strip() == "1"
