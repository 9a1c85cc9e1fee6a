"""The search: sensitivity, the best choice of the additive model, refinement, judgement of the best for real.

calibration   a draw of training sequences: grids, sensitivities and refinement look at these alone
validation    candidates are lowered as `qs5 lower` does and judged here, in the integer engine; so is the winner
test          never
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qs5.errors import UserError
from qs5.integer.cost import bit_operations
from qs5.integer.file import to_bytes
from qs5.integer.model import IntegerModel
from qs5.lowering.lower import Labels
from qs5.model.network import S5Model
from qs5.quantization.spec import QuantSpec, text_of
from qs5.search.budget import Budget
from qs5.search.costs import CostKind, CostModel
from qs5.search.journal import Journal, claim
from qs5.search.measure import Sample, measure, sample_of
from qs5.search.refine import refined
from qs5.search.sensitivity import Sensitivity, best_choice, sensitivity
from qs5.search.space import Choice, groups_of, reference, weight_sites, widths_of
from qs5.search.workshop import Workshop
from qs5.tasks.batches import permutation
from qs5.tasks.metrics import score
from qs5.tasks.task import Task

CALIBRATION = 1000
VALIDATION = 2000
FRONT = 6
"""Candidates over the whole range, for the picture of what another budget would give."""
TEXT_SLACK = 48
"""Bytes: how much longer the text in a file may get while bits are moved about."""
BISECTIONS = 4


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A choice that was lowered and judged on validation sequences.

    text: the spec, see `text_of`. ops: bit operations a step. divergence, metric: see `measure`, of n sequences.
    float_metric: of the float model on the same ones.
    """

    choice: Choice
    name: str
    text: str
    bytes: int
    ops: int
    divergence: float
    metric: float
    float_metric: float
    n: int
    seconds: float

    def cost(self, kind: CostKind) -> int:
        """Bytes or bit operations."""
        return self.bytes if kind == "bytes" else self.ops


Note = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """One model, one task, one folder; any number of budgets.

    Raises UserError where the folder belongs to another search, or the model cannot be lowered.
    """

    model: S5Model
    task: Task
    labels: Labels
    name: str
    folder: Path
    draw: int = 0
    calibration_examples: int = CALIBRATION
    validation_examples: int = VALIDATION
    note: Note = lambda _: None

    def __post_init__(self) -> None:
        if min(self.calibration_examples, self.validation_examples) < 1:
            raise UserError(
                f"expected at least 1 calibration and 1 validation sequence, got {self.calibration_examples} and "
                f"{self.validation_examples}"
            )
        if self.draw < 0:
            raise UserError(f"expected --draw at least 0, got {self.draw}")
        _ = self.workshop  # refuses what cannot be searched before a folder is made
        claim(self.folder, self.identity)

    @property
    def identity(self) -> dict[str, Any]:
        """What all results in the folder have in common."""
        leaves = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(self.model))
        return {
            "format": "qs5-search/1",
            "run": self.name,
            "model": hashlib.sha256(leaves).hexdigest(),
            "data": self.task.identity,
            "draw": self.draw,
            "calibration_examples": self.calibration_examples,
            "validation_examples": self.validation_examples,
        }

    @functools.cached_property
    def workshop(self) -> Workshop:
        """Where models are made."""
        return Workshop(self.model, self.task, self.labels, self.draw, cache=self.folder / "models")

    @functools.cached_property
    def calibration(self) -> Sample:
        """The first examples of the draw that also calibrates."""
        order = permutation(len(self.task.train), seed=self.draw, epoch=0)[: self.calibration_examples]
        return sample_of(self.model, self.task, self.task.train, order)

    @functools.cached_property
    def validation(self) -> Sample:
        """The first examples of the validation split."""
        order = np.arange(min(self.validation_examples, len(self.task.validation)))
        return sample_of(self.model, self.task, self.task.validation, order)

    @functools.cached_property
    def _trials(self) -> Journal:
        return Journal(self.folder / "trials.jsonl")

    @functools.cached_property
    def _candidates(self) -> Journal:
        return Journal(self.folder / "candidates.jsonl")

    # -- measurements, each once --------------------------------------------------------------------------

    def spec(self, choice: Choice) -> QuantSpec:
        """The spec of a choice, with a name of its own."""
        digest = hashlib.sha256(text_of(self.workshop.spec(choice)).encode()).hexdigest()
        return self.workshop.spec(choice, name=f"{self.name}-{digest[:8]}")

    def trial(self, choice: Choice) -> float:
        """Divergence on the calibration sequences, of the model put together from ops."""

        def make() -> dict[str, Any]:
            model = self.workshop.assembled(choice)
            return {"divergence": measure(model, self.task, self.calibration).divergence}

        return self._trials.value(text_of(self.workshop.spec(choice)), make)["divergence"]

    def lowered(self, choice: Choice) -> IntegerModel:
        """The integer model of a choice under its own name."""
        return self.workshop.lowered(choice, name=self.spec(choice).name)

    def candidate(self, choice: Choice) -> Candidate:
        """Quantize, lower and judge a choice."""
        spec = self.spec(choice)

        def make() -> dict[str, Any]:
            begin = time.monotonic()
            model = self.lowered(choice)
            found = measure(model, self.task, self.validation)
            return {
                "name": spec.name,
                "form": choice.form,
                "weights": choice.weights,
                "groups": choice.groups,
                "bytes": len(to_bytes(model)),
                "ops": bit_operations(model),
                **dataclasses.asdict(found),
                "float_metric": self._float_metric(),
                "seconds": round(time.monotonic() - begin, 2),
            }

        known = text_of(spec) in self._candidates.rows
        found = _candidate(self._candidates.value(text_of(spec), make))
        self.note(_line(found, self.task) + (" (known)" if known else ""))
        return found

    def _float_metric(self) -> float:
        return score(self.task, self.validation.split, self.validation.outputs)

    @property
    def candidates(self) -> list[Candidate]:
        """All that were judged in this folder, whatever the budget."""
        return [_candidate(row) for row in self._candidates.rows.values()]

    # -- the search ---------------------------------------------------------------------------------------

    def costs(self, kind: CostKind) -> CostModel:
        """The cost model of a kind."""
        return CostModel(workshop=self.workshop, kind=kind)

    def sensitivity(self, kind: CostKind) -> Sensitivity:
        """Of all sites and groups."""
        return sensitivity(self.workshop.config, kind, self.trial, self.note)

    def run(self, budget: Budget) -> Candidate:
        """The best candidate within a budget. Raises UserError where the smallest model is too large."""
        costs = self.costs(budget.cost)
        self.note("sensitivity: what divergence grows by on calibration data, with one site narrower")
        found = self.sensitivity(budget.cost)
        self._check_reachable(budget, found, costs)
        self.note(
            f"best choices of the additive model, judged on {self.validation_examples} validation sequences"
        )
        front = [self.candidate(choice) for choice in self._front(found, costs)]
        limit = budget.value if budget.kind != "drop" else self._limit_for_drop(budget, found, costs, front)
        judged = [*front, *(self.candidate(choice) for choice in self._path(found, costs, int(limit)))]
        return self._winner(budget, costs, judged)

    def _path(self, found: Sensitivity, costs: CostModel, limit: int) -> list[Choice]:
        """What refinement goes through; nothing where the smallest choice is above the limit."""
        best = self._within(found, costs, limit)
        if best is None:
            return []
        start = self._start(best, costs, limit)
        return refined(
            start,
            limit - (self._size(start, costs) - costs.estimate(start)),
            costs=costs,
            divergence=lambda choice: self._weights_trial(choice, costs),
            note=self.note,
        )

    def _winner(self, budget: Budget, costs: CostModel, judged: Sequence[Candidate]) -> Candidate:
        if budget.kind == "drop":
            fits = [c for c in judged if _drop(c) <= budget.value]
            return min(fits, key=lambda c: (c.bytes, c.divergence))
        fits = [c for c in judged if c.cost(costs.kind) <= budget.value]
        if not fits:
            least = min(c.cost(costs.kind) for c in judged)
            raise UserError(
                f"{budget.kind}: expected a model within {int(budget.value):,}, the smallest that was made has "
                f"{least:,}; give more"
            )
        return min(fits, key=lambda c: (c.divergence, c.cost(costs.kind)))

    def _check_reachable(self, budget: Budget, found: Sensitivity, costs: CostModel) -> None:
        if budget.kind == "drop":
            if self.task.metric != "accuracy":
                raise UserError(
                    f"drop: expected a task judged by accuracy, got {self.task.metric}; give bytes= or ops="
                )
            return
        least = min(self._size(c, costs) for c in self._cheapest(found, costs))
        if self._within(found, costs, int(budget.value)) is None:
            raise UserError(
                f"{budget.kind}: expected at least about {least:,}, which is every site at its fewest bits, got "
                f"{int(budget.value):,}"
            )

    def _cheapest(self, found: Sensitivity, costs: CostModel) -> Iterator[Choice]:
        """Every width at its narrowest, for each form."""
        groups = groups_of(self.workshop.config, costs.kind)
        for form in found.base:
            start = reference(self.workshop.config, form, groups)
            narrow = {s.name: widths_of(s, form)[-1] for s in weight_sites(self.workshop.config)}
            yield dataclasses.replace(
                start.with_weights(narrow), groups=tuple((g.name, g.widths[-1]) for g in groups)
            )

    def _front(self, found: Sensitivity, costs: CostModel) -> list[Choice]:
        """Best choices of the additive model over the range of costs, the cheapest first, the reference last."""
        starts = [
            reference(self.workshop.config, f, groups_of(self.workshop.config, costs.kind))
            for f in found.base
        ]
        most = max(costs.estimate(c) for c in starts)
        least = min(costs.estimate(c) for c in self._cheapest(found, costs))
        limits = np.geomspace(1.1 * least, most, FRONT)
        choices = [best_choice(found, costs, int(limit)) for limit in limits]
        return list(dict.fromkeys(c for c in choices if c is not None))

    def _size(self, choice: Choice, costs: CostModel) -> int:
        """The cost with the text that describes the model, and some slack for it."""
        if costs.kind != "bytes":
            return costs.estimate(choice)
        config = self.workshop.config
        start = reference(config, choice.form, groups_of(config, costs.kind))
        # The estimate holds the name and widths of a model that the workshop put together.
        specs = self.spec(choice), self.workshop.spec(start)
        text, counted = (len(json.dumps(s.name)) + len(s.widths(config)) for s in specs)
        return costs.estimate(choice) + text - counted + TEXT_SLACK

    def _within(self, found: Sensitivity, costs: CostModel, limit: int) -> Choice | None:
        """The best choice of the additive model that keeps to the limit with its text."""
        room = limit
        while (choice := best_choice(found, costs, room)) is not None:
            if (size := self._size(choice, costs)) <= limit:
                return choice
            room -= size - limit
        return None

    def _weights_trial(self, choice: Choice, costs: CostModel) -> float:
        """Divergence with the activations of the reference: theirs is not what refinement changes."""
        start = reference(self.workshop.config, choice.form, groups_of(self.workshop.config, costs.kind))
        return self.trial(dataclasses.replace(choice, groups=start.groups))

    def _start(self, best: Choice, costs: CostModel, limit: int) -> Choice:
        """Where refinement starts: the additive model's best, or a uniform width, whichever is nearer to the float."""
        uniform = [c for c in self._uniform(best) if self._size(c, costs) <= limit]
        return min([best, *uniform], key=lambda c: self._weights_trial(c, costs))

    def _uniform(self, choice: Choice) -> Iterator[Choice]:
        """One width for B, C and dense weights, Lambda-bar at its widest."""
        sites = weight_sites(self.workshop.config)
        for bits in widths_of(next(s for s in sites if s.role != "a"), choice.form):
            given = {s.name: widths_of(s, choice.form)[0] if s.role == "a" else bits for s in sites}
            yield choice.with_weights(given)

    def _limit_for_drop(
        self, budget: Budget, found: Sensitivity, costs: CostModel, front: list[Candidate]
    ) -> float:
        """A cost between candidates that drop too far and one that does not, found by bisection."""
        good = min((c.bytes for c in front if _drop(c) <= budget.value), default=None)
        if good is None:
            raise UserError(
                f"drop: expected a drop that the widest integer model keeps to, got {budget.value:g} points; it loses "
                f"{min(map(_drop, front)):.2f} of {100 * front[0].float_metric:.2f} %"
            )
        bad = max((c.bytes for c in front if c.bytes < good), default=good)
        for _ in range(BISECTIONS):
            choice = self._within(found, costs, (good + bad) // 2)
            if choice is None or bad >= good:
                break
            middle = self.candidate(choice)
            front.append(middle)
            if _drop(middle) <= budget.value:
                good = min(good, middle.bytes)
            else:
                bad = max(bad, middle.bytes)
        # Refinement gains something: what it can reach lies below what the additive model needs.
        return (good + bad) // 2


def _candidate(row: dict[str, Any]) -> Candidate:
    pairs = {k: tuple((site, bits) for site, bits in row[k]) for k in ("weights", "groups")}
    choice = Choice(form=row["form"], **pairs)
    rest = {f.name: row[f.name] for f in dataclasses.fields(Candidate) if f.name not in ("choice", "text")}
    return Candidate(choice=choice, text=row["key"], **rest)


def _drop(candidate: Candidate) -> float:
    """Points of accuracy lost against the float model on the same sequences."""
    return 100.0 * (candidate.float_metric - candidate.metric)


def _line(c: Candidate, task: Task) -> str:
    value = f"{100 * c.metric:.2f} %" if task.metric == "accuracy" else f"{c.metric:.5g}"
    return (
        f"{c.name}: {c.bytes:,} bytes, {c.ops / 1e6:.2f} M bit operations, divergence {c.divergence:.5f}, "
        f"{task.metric} {value}, {c.seconds:.1f} s"
    )


def on_front(candidates: Iterable[Candidate], kind: CostKind) -> list[Candidate]:
    """Those that no other one beats in both cost and divergence, the cheapest first."""
    kept: list[Candidate] = []
    for c in sorted(candidates, key=lambda c: (c.cost(kind), c.divergence)):
        if not kept or c.divergence < kept[-1].divergence:
            kept.append(c)
    return kept
