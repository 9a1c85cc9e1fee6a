"""The search over a small model: budgets, resuming, refusals, files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.search.conftest import QuickWorkshop

from qs5 import cli, integer
from qs5.cli import search as verb
from qs5.errors import UserError
from qs5.integer.cost import bit_operations
from qs5.integer.file import to_bytes
from qs5.quantization.spec import spec_of, text_of
from qs5.search import space
from qs5.search.budget import parse_budget
from qs5.search.costs import CostModel
from qs5.search.refine import refined
from qs5.search.search import TEXT_SLACK, Search, on_front
from qs5.search.space import Choice, groups_of, reference, spec_of_choice, weight_sites, widths_of

MakeSearch = Callable[..., Search]


def _random_choice(workshop: QuickWorkshop, kind: str, seed: int) -> Choice:
    rng = np.random.default_rng(seed)
    groups = groups_of(workshop.config, kind)
    start = reference(workshop.config, "polar", groups)
    weights = {s.name: int(rng.choice(widths_of(s, "polar"))) for s in weight_sites(workshop.config)}
    picked = tuple((g.name, int(rng.choice(g.widths))) for g in groups)
    return Choice(form="polar", weights=start.with_weights(weights).weights, groups=picked)


@pytest.mark.parametrize("kind", ["bytes", "ops"])
def test_the_spec_says_what_the_choice_says(workshop: QuickWorkshop, kind: str) -> None:
    for seed in range(20):
        choice = _random_choice(workshop, kind, seed)
        spec = spec_of_choice(choice, workshop.config, name="x")
        bits = spec_of(text_of(spec)).resolve(workshop.config)
        assert {site: bits[site] for site, _ in choice.weights} == dict(choice.weights)
        for site, group in (("ssm.y", "y"), ("gate", "gate"), ("norm", "norm"), ("ssm.Bu", "state")):
            usual = 16 if group == "state" else 8
            assert bits[f"layers.0.{site}"] == dict(choice.groups).get(group, usual)
        assert bits["layers.0.ssm.y.D"] == 8


def test_the_cost_model_is_the_real_cost(workshop: QuickWorkshop) -> None:
    in_bytes, in_ops = (CostModel(workshop=workshop, kind=kind) for kind in ("bytes", "ops"))
    for seed in range(10):
        choice = _random_choice(workshop, "bytes", seed)
        model = workshop.lowered(choice)
        assert in_ops.estimate(choice) == bit_operations(model)
        # Safetensors pads its header to 8 bytes; the rest is the text of the widths.
        text = len(model.description.widths) - len(
            workshop.lowered(reference(workshop.config, "polar", [])).description.widths
        )
        assert abs(in_bytes.estimate(choice) - (len(to_bytes(model)) - text)) <= 24


@pytest.mark.parametrize("kind", ["bytes", "ops"])
def test_the_winner_is_within_its_budget_and_the_best_that_was_judged(
    make_search: MakeSearch, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(space.GROUPS_OF_COST, "ops", ("norm", "gelu"))  # all four take five times as long
    search = make_search()
    costs = CostModel(workshop=search.workshop, kind=kind)  # type: ignore[arg-type]
    whole = costs.estimate(
        reference(search.workshop.config, "polar", groups_of(search.workshop.config, kind))
    )
    for share in (0.99, 0.9) if kind == "bytes" else (0.9,):
        budget = int(share * whole)
        best = search.run(parse_budget(f"{kind}={budget}"))
        model = search.lowered(best.choice)
        real = len(to_bytes(model)) if kind == "bytes" else bit_operations(model)
        assert real == best.cost(costs.kind) <= budget
        others = [c for c in search.candidates if c.cost(costs.kind) <= budget]
        assert best.divergence == min(c.divergence for c in others)


def test_a_drop_is_kept_in_the_fewest_bytes_judged(make_search: MakeSearch) -> None:
    search = make_search()
    best = search.run(parse_budget("drop=20"))
    assert 100 * (best.float_metric - best.metric) <= 20
    enough = [c.bytes for c in search.candidates if 100 * (c.float_metric - c.metric) <= 20]
    assert best.bytes == min(enough)


def test_refinement_only_gets_better_and_stays_within(make_search: MakeSearch) -> None:
    search = make_search()
    costs = search.costs("bytes")
    start = _random_choice(search.workshop, "bytes", 0)  # type: ignore[arg-type]
    budget = costs.estimate(start)
    path = refined(start, budget, costs=costs, divergence=search.trial)
    values = [search.trial(c) for c in path]
    assert len(path) > 1
    assert values == sorted(values, reverse=True) and len(set(values)) == len(values)
    assert all(costs.estimate(c) <= budget for c in path)


def test_the_same_search_again_measures_nothing(make_search: MakeSearch, workshop: QuickWorkshop) -> None:
    first = make_search()
    best = first.run(parse_budget("bytes=2750"))
    files = {p.name: p.read_bytes() for p in first.folder.glob("*.jsonl")}
    again = make_search()
    again.__dict__.update(calibration=None, validation=None)  # a measurement would fail
    assert again.run(parse_budget("bytes=2750")) == best
    assert {p.name: p.read_bytes() for p in first.folder.glob("*.jsonl")} == files


def test_a_killed_search_loses_one_line_at_most(make_search: MakeSearch) -> None:
    search = make_search()
    best = search.run(parse_budget("bytes=2750"))
    path = search.folder / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-3]) + lines[-3][:20])  # without a newline, as a kill leaves it
    again = make_search()
    assert again.run(parse_budget("bytes=2750")) == best
    assert sorted(path.read_text().splitlines()) == sorted(line.strip() for line in lines)


def test_a_folder_of_something_else_is_refused(make_search: MakeSearch, tmp_path: Path) -> None:
    make_search()
    with pytest.raises(UserError, match="holds a search with other draw"):
        make_search(draw=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(UserError, match="expected an empty folder"):
        make_search(folder=tmp_path / "other")


def test_a_draw_below_0_is_refused_before_a_folder_is_made(make_search: MakeSearch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected --draw at least 0, got -1"):
        make_search(draw=-1)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x", "a-run-with-a-very-long-name-" * 4, "Ärger"])
def test_the_size_that_is_planned_with_holds_the_name(make_search: MakeSearch, name: str) -> None:
    search = make_search(name=name)
    costs = search.costs("bytes")
    for seed in range(5):
        choice = _random_choice(search.workshop, "bytes", seed)  # type: ignore[arg-type]
        true = search.candidate(choice).bytes
        assert true <= search._size(choice, costs) <= true + 2 * TEXT_SLACK


def test_where_no_candidate_fits_the_smallest_is_named(make_search: MakeSearch) -> None:
    search = make_search()
    judged = [search.candidate(_random_choice(search.workshop, "bytes", 0))]  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=f"bytes: expected a model within 100, .* has {judged[0].bytes:,}; give"
    ):
        search._winner(parse_budget("bytes=100"), search.costs("bytes"), judged)


def test_an_impossible_budget_says_what_is_possible(make_search: MakeSearch) -> None:
    search = make_search()
    with pytest.raises(UserError, match=r"expected at least about [\d,]+, .*, got 100"):
        search.run(parse_budget("bytes=100"))


def test_the_front_has_what_no_other_beats(make_search: MakeSearch) -> None:
    search = make_search()
    search.run(parse_budget("bytes=2750"))
    front = on_front(search.candidates, "bytes")
    for c in search.candidates:
        beaten = any(f.bytes <= c.bytes and f.divergence <= c.divergence and f != c for f in front)
        assert beaten != (c in front)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("bytes=40k", "bytes", 40_000), ("ops=2.5M", "ops", 2_500_000), ("drop=0.5", "drop", 0.5)],
)
def test_budgets(text: str, kind: str, value: float) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.value) == (kind, value)


@pytest.mark.parametrize(
    "text", ["", "40k", "bytes", "bytes=", "bytes=x", "bytes=-1", "bytes=nan", "bytes=4q", "flops=3", "drop=0.5k",
             "drop=100", "ops=inf", "bytes=0"],
)  # fmt: skip
def test_bad_budgets_are_one_line_and_exit_2(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "smnist-float", f"--budget={text}"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("qs5: expected") and error.count("\n") == 1


def test_no_budget_is_exit_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "smnist-float"]) == 2
    assert "--budget bytes=40k" in capfd.readouterr().err


def test_the_verb_writes_spec_model_points_and_figure(
    make_search: MakeSearch, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    search = make_search()
    monkeypatch.setattr(verb, "open_search", lambda *_: search)
    assert cli.main(["search", "smnist-float", "--budget", "bytes=2750"]) == 0
    spec = spec_of(str(search.folder / "bytes-2750.toml"))
    path = search.folder / "bytes-2750.qs5"
    model = integer.load(str(path))
    assert path.stat().st_size <= 2750
    assert (model.description.spec, model.description.widths) == (spec.name, spec.widths(search.model.config))
    points = json.loads((search.folder / "points.json").read_text())
    assert {p["spec"] for p in points} == {c.text for c in search.candidates}
    assert text_of(spec) in {p["spec"] for p in points if p["on_front"] == "yes"}
    for kind in ("png", "svg", "csv"):
        assert (search.folder / f"pareto-bytes.{kind}").stat().st_size > 500
    assert f"--spec {search.folder / 'bytes-2750.toml'}" in capfd.readouterr().out
