"""What a choice costs: bytes of the integer model's file, or bit operations a step."""

import functools
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from qs5.integer.cost import bit_operations, constant_bytes, op_bit_operations
from qs5.integer.file import to_bytes
from qs5.integer.model import IntegerModel
from qs5.integer.ops import Op
from qs5.quantization.spec import Form
from qs5.search.space import GROUPS, Choice, Group, groups_of, reference
from qs5.search.workshop import Workshop

CostKind = Literal["bytes", "ops"]


def cost_of(model: IntegerModel, kind: CostKind) -> int:
    """Bytes of the file as it is written, or bit operations of a step."""
    return len(to_bytes(model)) if kind == "bytes" else bit_operations(model)


@dataclass(frozen=True, eq=False, kw_only=True)
class CostModel:
    """The cost of a choice as a sum over sites: exact for ops; for bytes but for the text that describes the model."""

    workshop: Workshop
    kind: CostKind

    def site(self, choice: Choice, site: str, bits: int) -> int:
        """Of the ops that hold a weight site at so many bits, beside the activations of `choice`."""
        return self._site(choice.form, choice.groups if self.kind == "ops" else (), site, bits)

    @functools.cache  # noqa: B019 (lives as long as its search)
    def _site(self, form: Form, groups: tuple[tuple[str, int], ...], site: str, bits: int) -> int:
        ops = self._ops(form, site, bits)
        if self.kind == "bytes":
            return sum(map(constant_bytes, ops))
        widths = self._signal_bits(form, groups)
        # What comes after the pool runs once a sequence and does not count.
        return sum(op_bit_operations(op, widths) for op in ops if op.out.name in self._steps(form))

    @functools.cache  # noqa: B019
    def _ops(self, form: Form, site: str, bits: int) -> tuple[Op, ...]:
        """At the reference's activations: an op of weights has the same size whatever they are."""
        return tuple(self.workshop.ops_of(self._reference(form), site, bits).values())

    @functools.cache  # noqa: B019
    def _reference(self, form: Form) -> Choice:
        return reference(self.workshop.config, form, groups_of(self.workshop.config, self.kind))

    def fixed(self, choice: Choice) -> int:
        """Of everything else."""
        total = self._fixed(choice.form)
        if self.kind == "bytes":
            groups = {g.name: g for g in groups_of(self.workshop.config, self.kind)}
            total += sum(self._group_bytes(choice.form, groups[name], bits) for name, bits in choice.groups)
        return total

    @functools.cache  # noqa: B019
    def _fixed(self, form: Form) -> int:
        start = self._reference(form)
        sites = sum(self.site(start, site, bits) for site, bits in start.weights)
        return cost_of(self.workshop.assembled(start), self.kind) - sites

    def estimate(self, choice: Choice) -> int:
        """The whole."""
        return self.fixed(choice) + sum(self.site(choice, site, bits) for site, bits in choice.weights)

    @functools.cache  # noqa: B019
    def _group_bytes(self, form: Form, group: Group, bits: int) -> int:
        """What a file grows by (less than 0) with a narrower group: its tables have fewer entries."""
        start = self._reference(form)
        sizes = [
            sum(map(constant_bytes, self.workshop.assembled(choice).ops))
            for choice in (narrowed(start, group.name, bits), start)
        ]
        return sizes[0] - sizes[1]

    @functools.cache  # noqa: B019
    def _steps(self, form: Form) -> frozenset[str]:
        return frozenset(op.out.name for op in self.workshop.assembled(self._reference(form)).step_ops)

    @functools.cache  # noqa: B019
    def _signal_bits(self, form: Form, groups: tuple[tuple[str, int], ...]) -> dict[str, int]:
        signals = self.workshop.assembled(self._reference(form)).signals
        widths = {name: signal.bits for name, signal in signals.items()}
        patterns = {g.name: g.patterns for g in GROUPS}
        for name, bits in groups:
            widths |= {n: bits for n in widths if any(fnmatchcase(n, p) for p in patterns[name])}
        return widths


def narrowed(choice: Choice, group: str, bits: int) -> Choice:
    """The choice with another width of one group."""
    groups = tuple((name, bits if name == group else width) for name, width in choice.groups)
    return Choice(form=choice.form, weights=choice.weights, groups=groups)
