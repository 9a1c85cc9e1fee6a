"""From a choice of bits to an integer model: for real, as `qs5 quantize` and `qs5 lower` make it, or put together.

An op of an integer model depends on the bits of its own weights and on the grids of the activations around it, not on
the bits of other weights. So one model a width, lowered with that width everywhere, holds the op of every site at that
width, and any mixture is put together from them in no time: `Workshop.assembled`. `Workshop.lowered` is the long way;
both give the same model (tests/search/test_workshop.py).
"""

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from qs5.errors import UserError
from qs5.integer import ops as o
from qs5.integer.file import load, save
from qs5.integer.model import IntegerModel
from qs5.lowering.lower import DEFAULT_MAX_LENGTH, Labels, Preprocessing, Tokens, lower, obstacles
from qs5.model.config import ModelConfig
from qs5.model.network import S5Model
from qs5.numerics.polar import PolarCodes
from qs5.quantization.build import eigenvalue_codes, prepared
from qs5.quantization.calibration import CalibrationStats, plan_grids
from qs5.quantization.grids import GridPlan
from qs5.quantization.spec import Form, QuantSpec, text_of
from qs5.search.space import EIGENVALUE_WIDTHS, WEIGHT_WIDTHS, Choice, spec_of_choice, weight_sites
from qs5.tasks.task import OneHot, Task
from qs5.training import methods


def preprocessing_of(task: Task) -> Preprocessing | Tokens:
    """How a task makes real input from raw samples, for the lowering."""
    encoding = task.encoding
    if isinstance(encoding, OneHot):
        return Tokens(width=encoding.width)
    return Preprocessing(dtype=task.train.x.dtype.name, scale=encoding.scale, offset=encoding.offset)


@dataclass(frozen=True, eq=False)
class Workshop:
    """A float model and a task, and what is worked out about them once.

    labels: what goes into the integer models beside their ops. draw: of the calibration examples, as in `ptq`. cache: a
    folder for the models of one width, so that they are lowered once.
    """

    model: S5Model
    task: Task
    labels: Labels
    draw: int = 0
    cache: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.preprocessing, Tokens):
            raise UserError(
                f"cannot search: {self.task.name} is read as tokens, and its encoder, a table, has no bits of its own"
            )
        if reasons := obstacles(self.model, QuantSpec(form="linear")):
            raise UserError("cannot search: " + "; ".join(reasons))

    @property
    def config(self) -> ModelConfig:
        """Of the network."""
        return self.model.config

    def spec(self, choice: Choice, *, name: str = "search") -> QuantSpec:
        """The spec of a choice."""
        return spec_of_choice(choice, self.config, name=name)

    def lowered(self, choice: Choice, *, name: str = "search") -> IntegerModel:
        """The integer model of a choice after post-training quantization."""
        spec = self.spec(choice, name=name)
        return lower(
            self.prepared(choice.form),
            spec=spec,
            plan=self._plan(spec),
            preprocessing=self.preprocessing,
            labels=self.labels,
            max_length=DEFAULT_MAX_LENGTH,
        )

    def assembled(self, choice: Choice, *, name: str = "search") -> IntegerModel:
        """The same model, put together from ops of models of one width each."""
        ops = {
            op.out.name: op
            for site, bits in choice.weights
            for op in self.ops_of(choice, site, bits).values()
        }
        start = self._uniform(choice.form, choice.groups, 0)
        spec = self.spec(choice, name=name)
        description = dataclasses.replace(start.description, spec=spec.name, widths=spec.widths(self.config))
        mixed = tuple(ops.get(op.out.name, op) for op in start.ops)
        return dataclasses.replace(start, ops=mixed, description=description)

    def ops_of(self, choice: Choice, site: str, bits: int) -> dict[str, o.Op]:
        """The ops that hold the weights of a site, at so many bits: one, or one a direction of a recurrence."""
        widths = EIGENVALUE_WIDTHS[choice.form] if site.endswith(".ssm.state.weight") else WEIGHT_WIDTHS
        model = self._uniform(choice.form, choice.groups, widths.index(bits))
        owner = site.rsplit(".", 1)[0]
        return {op.out.name: op for op in model.ops if op.out.name in (owner, f"{owner}_reverse")}

    # -- worked out once ----------------------------------------------------------------------------------

    @functools.cache  # noqa: B019 (a workshop lives as long as its search)
    def _uniform(self, form: Form, groups: tuple[tuple[str, int], ...], index: int) -> IntegerModel:
        """The model with the width number `index` at every weight site."""
        rows = list(zip_longest(EIGENVALUE_WIDTHS[form], WEIGHT_WIDTHS))
        a, other = (
            width or widths[-1]
            for width, widths in zip(rows[index], (EIGENVALUE_WIDTHS[form], WEIGHT_WIDTHS), strict=True)
        )
        sites = tuple((s.name, a if s.role == "a" else other) for s in weight_sites(self.config))
        return self._kept(Choice(form=form, weights=sites, groups=groups))

    def _kept(self, choice: Choice) -> IntegerModel:
        """Lowered, or read from the cache."""
        if self.cache is None:
            return self.lowered(choice)
        digest = hashlib.sha256(text_of(self.spec(choice)).encode()).hexdigest()
        path = self.cache / f"{digest[:16]}.qs5"
        if not path.exists():
            save(path, self.lowered(choice))
        return load(path)

    @functools.cache  # noqa: B019
    def prepared(self, form: Form) -> S5Model:
        """The float model as codes of a form want it."""
        return prepared(self.model, QuantSpec(form=form, a=8))

    @functools.cache  # noqa: B019
    def stats(self, form: Form) -> CalibrationStats:
        """Ranges over the calibration examples, those of `ptq`."""
        return methods.calibration_stats(self.prepared(form), self.task, draw=self.draw)

    def _plan(self, spec: QuantSpec) -> GridPlan:
        """`plan_of`, without doing again what another spec has in common."""
        bits = spec.resolve(self.config)
        coded = [(s, bits[s] or 0) for s in self._state_weights if spec.form == "polar"]
        return dataclasses.replace(
            self._grids(
                spec.replace(name="grids", a=8, b=8, c=8, dense=8, overrides=self._activation_rules(spec))
            ),
            eigenvalues=tuple((site, self._codes(width)[site]) for site, width in coded),
        )

    @property
    def _state_weights(self) -> tuple[str, ...]:
        return tuple(s.name for s in weight_sites(self.config) if s.role == "a")

    def _activation_rules(self, spec: QuantSpec) -> tuple[tuple[str, int | None], ...]:
        weights = {s.name for s in weight_sites(self.config)}
        return tuple(rule for rule in spec.overrides if rule[0] not in weights)

    @functools.cache  # noqa: B019
    def _grids(self, spec: QuantSpec) -> GridPlan:
        return plan_grids(self.stats(spec.form), spec, self.config)

    @functools.cache  # noqa: B019
    def _codes(self, bits: int) -> dict[str, PolarCodes]:
        return dict(eigenvalue_codes(self.prepared("polar"), QuantSpec(form="polar", a=bits)))

    @property
    def preprocessing(self) -> Preprocessing | Tokens:
        """How the task makes real input from raw samples."""
        return preprocessing_of(self.task)
