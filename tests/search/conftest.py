"""A search over a small integer model that costs nothing to make: no JAX, no training, no compilation.

`QuickWorkshop.lowered` rounds one set of random weights to the widths of a choice. What lowering really gives is tested
in test_workshop.py.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integer.small import affine, array, dense, output, signal
from tests.support import small_model, small_task

from qs5.integer import ops as o
from qs5.integer.model import Description, InputQuantizer, IntegerModel
from qs5.integer.signals import Signal
from qs5.integer.whole import all_logits, raw_of, real_outputs
from qs5.lowering.lower import Labels
from qs5.quantization.polar_search import encode
from qs5.search.measure import Sample
from qs5.search.search import Search
from qs5.search.space import Choice
from qs5.search.workshop import Workshop
from qs5.tasks.task import Encoding, Split, Task

H, M, CLASSES = 6, 4, 3
EIGENVALUES = np.asarray([0.99, 0.9, 0.95, 0.8]) * np.exp(1j * np.asarray([0.1, 0.4, 0.5, 1.5]))
WIDE = 8


def _codes(weights: np.ndarray, bits: int) -> np.ndarray:
    """Weights within -1..1 as codes."""
    if bits == 1:
        return np.where(weights >= 0, 1, -1)
    return np.rint(weights * (2 ** (bits - 1) - 1)).astype(int)


def _scale(n: int, bits: int) -> dict[str, np.ndarray]:
    """What makes a code of so many bits weigh as much as one of 8."""
    return {"shift": array([21 - (WIDE - bits)] * n, "uint8")}


def _eigenvalues(form: str, bits: int) -> dict[str, Any]:
    """The part of a recurrence that depends on the form."""
    if form == "linear":
        parts = {
            k: np.rint(v * (2 ** (bits - 1) - 1))
            for k, v in (("re", np.real(EIGENVALUES)), ("im", np.imag(EIGENVALUES)))
        }
        return {"bits": bits, "M": 1, "shift": bits - 1, **{k: array(v, "int16") for k, v in parts.items()}}
    codes = _encoded(bits)
    low = 2 ** (bits - 1)
    return {
        **{f"decay_{k}": getattr(codes.decay_scale, k) for k in ("bits", "mantissa", "unit")},
        **{f"angle_{k}": getattr(codes.angle_scale, k) for k in ("bits", "mantissa", "unit")},
        "decays": array(np.asarray(codes.decays) - low, "int8"),
        "angles": array(np.asarray(codes.angles) - low, "int8"),
    }


@functools.cache
def _encoded(bits: int):
    return encode(EIGENVALUES, bits=bits)


class QuickWorkshop(Workshop):
    """Counts what it lowers."""

    @functools.cached_property
    def lowerings(self) -> list[Choice]:
        return []

    def lowered(self, choice: Choice, *, name: str = "search") -> IntegerModel:
        self.lowerings.append(choice)
        spec = self.spec(choice, name=name)
        return IntegerModel(
            task="classification",
            input=InputQuantizer(source="codes", out=signal("input", 1)),
            ops=tuple(self._ops(choice.form, dict(choice.weights), dict(choice.groups))),
            max_length=100,
            description=Description(task="small", spec=spec.name, widths=spec.widths(self.config)),
        )

    def _ops(self, form: str, bits: dict[str, int], groups: dict[str, int]) -> list[o.Op]:
        rng = np.random.default_rng(3)
        weight = {name: rng.uniform(-1, 1, shape) for name, shape in self._shapes().items()}

        def matrix(name: str, x: str, channels: int, width: int) -> o.Dense:
            site = f"{name}.weight"
            b = bits[site]
            out = signal(name, channels, width)
            codes = _codes(weight[site], b)
            return dense(x, out, codes, bits=b, bias=[0] * channels, **_scale(channels, b))

        L = "layers.0"
        C = f"{L}.ssm.y.C"
        y, gate, norm, read, gelu = (groups.get(g, 8) for g in ("y", "gate", "norm", "state_out", "gelu"))
        wide = groups.get("state", 16)
        recurrence = {
            "out": signal(f"{L}.ssm.state", 2 * M, wide),
            "x": f"{L}.ssm.Bu",
            "modes": M,
            "reverse": False,
            "exponents": array([0] * M, "int8"),
            **_eigenvalues(form, bits[f"{L}.ssm.state.weight"]),
        }
        return [
            matrix("encoder", "input", H, 16),
            affine("encoder", signal(f"{L}.norm", H, norm), M=64, shift=6),
            matrix(f"{L}.ssm.Bu", f"{L}.norm", 2 * M, wide),
            o.Recurrence(**recurrence) if form == "linear" else o.PolarRecurrence(**recurrence),
            o.Shift(
                out=signal(f"{L}.ssm.state_out", 2 * M, read), x=f"{L}.ssm.state", modes=M,
                shift=array([2] * M, "int8"),
            ),
            output(
                f"{L}.ssm.state_out", f"{L}.norm", signal(f"{L}.ssm.y", H, y), _codes(weight[C], bits[C]),
                bits=bits[C], **_scale(H, bits[C]),
            ),
            self._table(signal(f"{L}.gelu", H, gelu), f"{L}.ssm.y", y),
            matrix(f"{L}.gate", f"{L}.gelu", H, gate),
            self._table(signal(f"{L}.sigmoid", H, signed=False), f"{L}.gate", gate),
            o.Multiply(out=signal(f"{L}.product", H, 16), x=f"{L}.gelu", y=f"{L}.sigmoid", shift=3),
            o.Add(out=signal(f"{L}.residual", H, 16), x="encoder", y=f"{L}.product", shift=0),
            o.MeanPool(out=signal("pool", H, 16), x=f"{L}.residual"),
            matrix("decoder", "pool", CLASSES, 16),
        ]  # fmt: skip

    def _shapes(self) -> dict[str, tuple[int, int]]:
        L = "layers.0"
        return {
            "encoder.weight": (H, 1),
            f"{L}.ssm.Bu.weight": (2 * M, H),
            f"{L}.ssm.y.C": (H, 2 * M),
            f"{L}.gate.weight": (H, H),
            "decoder.weight": (CLASSES, H),
        }

    def _table(self, out: Signal, x: str, bits: int) -> o.Table:
        at = np.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1))
        values = np.clip(at if out.signed else at + 2 ** (bits - 1), 0, out.high)
        return o.Table(out=out, x=x, function="t", entries=len(at), table=array(values, out.dtype.name))


def _small(task: Task) -> Task:
    def codes(split: Split) -> Split:
        return Split(x=np.clip(np.rint(split.x * 60), -100, 100).astype(np.int16), y=split.y, lengths=None)

    parts = {name: codes(split) for name, split in task.splits.items()}
    return dataclasses.replace(task, encoding=Encoding(scale=(1.0,), offset=(0.0,)), **parts)


@pytest.fixture(scope="session")
def workshop() -> QuickWorkshop:
    model = small_model(layers=1, H=H, P=2 * M, d_in=1, d_out=CLASSES)
    return QuickWorkshop(model, _small(small_task()), Labels())


MakeSearch = Callable[..., Search]


@pytest.fixture
def make_search(workshop: QuickWorkshop, tmp_path: Path) -> MakeSearch:
    """A search whose float model is the integer model of the widest bits, but for a little noise."""

    def sample(split: Split) -> Sample:
        from qs5.search.space import groups_of, reference

        wide = workshop.lowered(reference(workshop.config, "polar", groups_of(workshop.config, "bytes")))
        codes = all_logits(_reference_engine(wide), raw_of(wide, split.x), None)
        noise = np.random.default_rng(0).normal(size=codes.shape) * 0.01
        return Sample(split=split, outputs=real_outputs(wide, codes) + noise)

    def make(*, folder: Path = tmp_path / "search", **changes: Any) -> Search:
        task = workshop.task
        fixed: dict[str, Any] = {
            "name": "small",
            "calibration_examples": 26,
            "validation_examples": 10,
            **changes,
        }
        search = _Quick(model=workshop.model, task=task, labels=workshop.labels, folder=folder, **fixed)
        search.__dict__.update(calibration=sample(task.train), validation=sample(task.validation))
        workshop.lowerings.clear()
        return search

    class _Quick(Search):
        @functools.cached_property
        def workshop(self) -> Workshop:
            return workshop

    return make


def _reference_engine(model: IntegerModel):
    from qs5 import integer

    return integer.engine(model)
