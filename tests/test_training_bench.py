"""`python -m benchmarks`: the formula of the products, the float32 peak, the page; at tiny sizes."""

import itertools
import json
import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from benchmarks import __main__ as bench, training_groups, training_page
from benchmarks.float_peak import Peak, float_peak
from benchmarks.interleaved import ratio, take_turns
from benchmarks.multiply_adds import multiply_adds
from benchmarks.training_groups import Group, Quotient
from benchmarks.training_step import PIXELS, Step
from jax.extend.core import ClosedJaxpr, Jaxpr
from tests.clock import Clock

from qs5.errors import UserError
from qs5.kernels import native
from qs5.machine import processors
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.config import ModelConfig
from qs5.model.network import init_model
from qs5.model.recurrence import scan_sequential
from qs5.training.loop import batch_loss

TINY = ModelConfig(d_in=2, d_out=3, layers=2, H=6, P=8, norm="layer")
BATCH, LENGTH = 3, 5


@pytest.mark.parametrize(
    "changes", [{}, {"bidirectional": True}, {"activation": "full_glu", "conj_sym": False}]
)
def test_the_formula_counts_the_products_of_the_gradient(changes: dict[str, Any]):
    """Against all `dot_general` of JAX's own gradient; y += D u is no dot: three times its size are added by hand."""
    c = TINY.replace(**changes)
    x = jnp.zeros((BATCH, LENGTH, c.d_in), jnp.uint8)
    model = eqx.filter_eval_shape(init_model, jax.random.key(0), c)  # shapes are enough

    def loss(model: Any) -> Any:
        return batch_loss(
            model, x, jnp.zeros(BATCH, jnp.int32), None, jax.random.key(0),
            arithmetic=FloatArithmetic(scan_sequential), encoding=PIXELS, loss="cross_entropy", batch_stats=False,
        )[0]  # fmt: skip

    traced = jax.make_jaxpr(jax.grad(loss))(model)
    through_D = 3 * BATCH * LENGTH * c.layers * c.H
    assert _dots(traced.jaxpr) + through_D == multiply_adds(c, batch=BATCH, length=LENGTH)


def _dots(jaxpr: Any) -> int:
    """Multiply-adds of the dots outside of loops, those of functions called included."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
        inner = [_dots(j) for j in _inside(equation)]
        assert not sum(inner) or equation.primitive.name not in ("scan", "while")
        total += sum(inner)
    return total


def _inside(equation: Any) -> list[Any]:
    """The programs that an equation runs."""
    params = [p for v in equation.params.values() for p in (v if isinstance(v, tuple) else (v,))]
    return [
        p.jaxpr if isinstance(p, ClosedJaxpr) else p for p in params if isinstance(p, ClosedJaxpr | Jaxpr)
    ]


def test_the_products_of_the_paper_size_step():
    """31.8 GFLOP of B, C and gate (shared/performance-findings.md), and a little for D, encoder and decoder."""
    count = multiply_adds(training_groups.FULL, batch=50, length=784)
    assert 31.8e9 < 2 * count < 32.0e9


def test_untimed_rounds_come_first():
    calls: list[str] = []
    times = take_turns({name: partial(calls.append, name) for name in "ab"}, rounds=1, warm_ups=2)
    assert "".join(calls) == "ababab" and [len(t) for t in times.values()] == [1, 1]


def test_a_ratio_is_formed_within_a_round():
    assert ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]).median == 2.0


class Timed:
    """A step whose call is given."""

    config = TINY

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def call(self, *, batch: int, length: int) -> Any:
        assert (batch, length) == (BATCH, LENGTH)
        return self._call


def test_shares_ratios_and_minutes_of_a_group(monkeypatch: pytest.MonkeyPatch):
    """A peak that does twice the step's products; by round: slow / fast is 2, 4, 2, and half the peak's time over fast
    1/4, 1/2, 1/8. Of three numbers the quartiles are the least and the largest."""
    clock, first = Clock(monkeypatch), [1000.0] * training_page.WARM_UPS
    slow, fast = (Timed(clock.taking([*first, *rounds])) for rounds in ([8, 8, 8], [4, 2, 4]))
    steps: dict[str, Any] = {"slow": slow, "fast": fast}
    group = Group(
        title="T", about="A.", steps=steps, quotients=(Quotient(title="q", over="slow", under="fast"),),
        shares={"fast": "at least 45 %"}, batch=BATCH, length=LENGTH,
    )  # fmt: skip
    count = multiply_adds(TINY, batch=BATCH, length=LENGTH)
    peak = Peak(clock.taking([*first, 2, 2, 1]), 2 * count, 2)
    entry = training_page.measure(group, peak=peak, rounds=3)
    assert entry["ratios"]["q"] == {"median": 2.0, "low": 2.0, "high": 4.0, "goal": "-"}
    share = {"multiply_adds": count, "floor_seconds": 1.0, "median": 0.25, "low": 0.125, "high": 0.5}
    assert entry["shares"] == {"fast": {**share, "goal": "at least 45 %"}}
    assert entry["peak_gflops"] == 2e-9 * 2 * count / 2.0 and entry["peak_threads"] == 2
    assert entry["minutes_per_epoch"] == {
        name: 60_000 / BATCH * s / 60 for name, s in {"slow": 8.0, "fast": 4.0}.items()
    }


def test_without_a_peak_nothing_is_said_of_shares(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    steps: dict[str, Any] = {"one": Timed(clock.taking(itertools.repeat(1.0)))}
    group = Group(
        title="T", about="A.", steps=steps, quotients=(), shares={"one": "-"}, batch=BATCH, length=LENGTH
    )
    assert "shares" not in training_page.measure(group, peak=None, rounds=2)


def sleepers(**_: Any) -> dict[str, Group]:
    """Steps that really take time."""
    steps: dict[str, Any] = {
        name: Timed(partial(time.sleep, seconds)) for name, seconds in (("slow", 0.002), ("fast", 0.001))
    }
    quotient = Quotient(title="slow over fast", over="slow", under="fast", goal="at least 1")
    return {
        key: Group(
            title=f"Title of {key}", about="A.", steps=steps, quotients=(quotient,), shares={"fast": "-"},
            batch=BATCH, length=LENGTH,
        )
        for key in bench.GROUPS
    }  # fmt: skip


def test_a_group_replaces_its_part_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Groups stand in the page's order; an older page's own keys are dropped."""
    monkeypatch.setattr(training_groups, "groups", sleepers)
    monkeypatch.setattr(bench, "_peak", lambda: Peak(lambda: time.sleep(0.001), 10**6, 2))
    monkeypatch.setattr(native, "available", lambda: True)
    (tmp_path / "training_step.json").write_text(json.dumps({"machine": "of an older page", "timings": {}}))
    bench.run(["qat"], rounds=2, out=tmp_path)
    first = json.loads((tmp_path / "training_step.json").read_text())
    text = bench.run(["sizes"], rounds=3, out=tmp_path)
    results = json.loads((tmp_path / "training_step.json").read_text())
    assert list(first) == ["qat"] and list(results) == ["sizes", "qat"] and results["qat"] == first["qat"]
    assert text == (tmp_path / "training_step.md").read_text()
    assert text.index("## Title of sizes") < text.index("## Title of qat")
    assert text.count("| slow over fast |") == 2 and "python -m benchmarks sizes --rounds 3" in text
    assert "in 2 threads" in text


def test_without_native_kernels_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(native, "available", lambda: False)
    with pytest.raises(UserError, match="expected the native kernels"):
        bench.run(["norms"], rounds=2, out=tmp_path)


@pytest.mark.slow  # compiles
@pytest.mark.parametrize(
    "changes", [{"optimizer": True}, {"spec": "W8A8"}, {"spec": training_groups.PAPER_SPEC}]
)
def test_a_step_computes_a_finite_loss(changes: dict[str, Any]):
    c = TINY.replace(d_in=1, layers=1, dropout=0.1, norm="batch")
    results = Step(config=c, **changes).call(batch=BATCH, length=LENGTH)()
    assert all(bool(jnp.all(jnp.isfinite(a))) for a in jax.tree.leaves(results))


def test_the_float_peak_runs_in_every_thread():
    """Not faster than 8 vectors of 16 in each of 10^10 cycles a second: were sums left out, it would be."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    peak = float_peak(rounds=1_000_000)
    assert peak.threads == processors() and peak.multiply_adds % (peak.threads * 12_000_000) == 0
    begin = time.perf_counter()
    assert peak.call() == pytest.approx([peak.multiply_adds / peak.threads / 1e6] * peak.threads)
    assert peak.multiply_adds / (time.perf_counter() - begin) < peak.threads * 8 * 16 * 1e10


def test_the_command_knows_the_groups(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert tuple(training_groups.groups()) == bench.GROUPS
    for words, why in ((["nothing"], "unknown group nothing"), (["--rounds", "1"], "2 or more, got 1")):
        monkeypatch.setattr("sys.argv", ["benchmarks", *words])
        with pytest.raises(SystemExit):
            bench.main()
        assert why in capsys.readouterr().err
