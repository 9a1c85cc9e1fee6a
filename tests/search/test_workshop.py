"""A model put together from ops of uniform ones is what quantizing and lowering gives, and costs what it says."""

from typing import Any

import pytest
from tests.support import small_model, small_task

from qs5.errors import UserError
from qs5.integer.cost import bit_operations
from qs5.integer.file import to_bytes
from qs5.lowering.lower import Labels, Preprocessing, lower
from qs5.quantization.build import plan_of, prepared
from qs5.quantization.spec import Form
from qs5.search.costs import CostKind, CostModel
from qs5.search.search import TEXT_SLACK
from qs5.search.space import Choice, groups_of, reference, weight_sites, widths_of
from qs5.search.workshop import Workshop
from qs5.tasks.task import Encoding, OneHot
from qs5.training import methods


def _choice(workshop: Workshop, form: Form, kind: CostKind) -> Choice:
    """Widths of every kind, the groups narrower than usual."""
    groups = groups_of(workshop.config, kind)
    start = reference(workshop.config, form, groups)
    sites = weight_sites(workshop.config)
    weights = {s.name: widths_of(s, form)[(2 * i + 1) % 5] for i, s in enumerate(sites)}
    narrow = tuple((g.name, g.widths[1 + i % 2]) for i, g in enumerate(groups))
    return Choice(form=form, weights=start.with_weights(weights).weights, groups=narrow)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "kind", "shape"),
    [
        ("polar", "bytes", {}),
        ("polar", "ops", {"bidirectional": True, "activation": "full_glu"}),
        ("linear", "ops", {"norm": "layer", "gelu": "qgelu", "gate": "hard_sigmoid"}),
    ],
)
def test_put_together_is_lowered(form: Form, kind: CostKind, shape: dict[str, Any]) -> None:
    model, task = small_model(layers=2, d_in=1, d_out=3, **shape), small_task()
    workshop = Workshop(model, task, Labels(task="small", classes=task.classes))
    choice = _choice(workshop, form, kind)
    mixed = workshop.assembled(choice)
    assert to_bytes(mixed) == to_bytes(workshop.lowered(choice))
    # And by the functions that `qs5 quantize` and `qs5 lower` call.
    spec = workshop.spec(choice)
    ready = prepared(model, spec)
    plan = plan_of(ready, methods.calibration_stats(ready, task), spec)
    assert isinstance(task.encoding, Encoding)
    scale, offset = task.encoding.scale, task.encoding.offset
    preprocessing = Preprocessing(dtype="float32", scale=scale, offset=offset)
    slow = lower(ready, spec=spec, plan=plan, preprocessing=preprocessing, labels=workshop.labels)
    assert to_bytes(slow) == to_bytes(mixed)
    costs = CostModel(workshop=workshop, kind=kind)
    if kind == "ops":
        assert costs.estimate(choice) == bit_operations(mixed)
    else:
        text = len(mixed.description.widths) - len(spec.replace(overrides=()).widths())
        assert abs(len(to_bytes(mixed)) - text - costs.estimate(choice)) <= TEXT_SLACK


def test_tokens_and_heads_without_integers_are_refused() -> None:
    task = small_task()
    with pytest.raises(UserError, match="read as tokens"):
        Workshop(small_model(d_in=1, d_out=3), small_task(encoding=OneHot(width=1)), Labels())
    with pytest.raises(UserError, match="retrieval head"):
        Workshop(small_model(d_in=1, d_out=3, head="retrieval"), task, Labels())
