"""The harness of the peers and of the scaling page, at tiny sizes; peers that are not installed are skipped visibly."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import pathx
from benchmarks.peers import page as peers_page, training
from benchmarks.peers.peer import Group, Missing, Ready, checked, distance, measure, needs
from benchmarks.scaling import __main__ as scaling, page, points

SIZES = {"layers": 1, "H": 6, "P": 8}
TIGHT = 2e-5
"""float32, sums in another order."""


def ready(value: float) -> Ready:
    return Ready(lambda: None, {"y": np.full(3, value)})


def test_a_peer_that_computes_something_else_is_not_timed_and_stops_nobody():
    def broken() -> Ready:
        raise RuntimeError("no such operator\nand more")

    def absent() -> Ready:
        needs("a_package_that_is_not_there")
        raise AssertionError

    variants = {"ours": lambda: ready(1.0), "same": lambda: ready(1.0 + 1e-6), "other": lambda: ready(1.1)}
    group = Group("g", "title", "about", 30, {**variants, "broken": broken, "absent": absent})
    rows = {row.name: row for row in measure(group, rounds=2)}
    assert rows["same"].timing is not None and rows["same"].distance == pytest.approx(1e-6, rel=0.1)
    assert rows["other"].timing is None and "computes something else: y is off by 0.1" in rows["other"].note
    assert rows["broken"].note == "not measured: RuntimeError: no such operator"
    assert "a_package_that_is_not_there not installed" in rows["absent"].note


def test_distance_and_check():
    assert distance([3.0, 4.0], [3.0, 4.0]) == 0.0
    assert distance([0.0, 0.0], [3.0, 4.0]) == 1.0
    with pytest.raises(Missing, match="shape"):
        distance([1.0], [1.0, 2.0])
    with pytest.raises(Missing, match="off by nan"):
        checked(ready(float("nan")), ready(1.0))


def test_the_page_of_the_peers(tmp_path: Path):
    variants = {"ours": lambda: ready(1.0), "other": lambda: ready(1.1)}
    group = Group("training", "Title", "about", 30, variants)
    rows = measure(group, rounds=2)
    entry = peers_page.entry(group, rows, {"commit": "c"}, (peers_page.Quotient("q", "ours", "ours"),))
    results = peers_page.merge(tmp_path, "training", entry)
    results = peers_page.merge(
        tmp_path, "memory", {"title": "M", "about": "", "rows": {"v": {"error": "why"}}}
    )
    text = peers_page.write(results, tmp_path, ["training", "memory"])
    assert "| q | 1.00 |" in text and "computes something else" in text and "not measured: why" in text
    assert json.loads((tmp_path / "peers.json").read_text())["training"]["quotients"] == {"q": 1.0}


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script:DeprecationWarning"
)  # s5-pytorch's, when it is imported
def test_pytorch_and_s5_pytorch_compute_the_float_model():
    """Logits and the encoder's gradient, over several chunks; s5-pytorch where it is installed."""
    pytest.importorskip("torch", reason="the extra bench is not installed")
    config = training.CONFIG.replace(**SIZES)
    group = training.float_group(batch=2, length=3 * 28, config=config)
    ours = group.variants[training.FLOAT]()
    peers = [name for name in group.variants if "PyTorch" in name and "compile" not in name]
    peers += [name for name in group.variants if "s5-pytorch" in name and _installed("s5")]
    assert len(peers) >= 1
    for name in peers:
        found = checked(group.variants[name](), ours)
        assert found is not None and found < TIGHT, name


def _installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


@pytest.mark.slow
def test_the_aqt_formulation_in_float_is_the_float_model():
    config = training.QAT_CONFIG.replace(**SIZES)
    group = training.qat_group(batch=2, length=7, config=config)
    found = checked(group.variants[training.AQT_FLOAT](), group.variants[training.QS5_FLOAT]())
    assert found is not None and found < TIGHT


@pytest.mark.slow
def test_the_aqt_formulation_at_8_bits_is_the_papers_way():
    """Compared where qs5 reproduces the paper; the lengths that AQT takes are those whose tree has no empty slice."""
    config = training.QAT_CONFIG.replace(**SIZES)
    group = training.qat_group(batch=2, length=7, config=config)
    paper = group.variants[training.PAPER_WAY]()
    found = checked(group.variants[training.AQT](), paper)
    assert found is not None and found < 1e-3
    assert distance(paper.outputs["logits"], group.variants[training.QS5_FLOAT]().outputs["logits"]) > 1e-3


def test_scaling_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[points.Point, float]] = []

    def run(point: points.Point, *, budget: float) -> dict[str, object]:
        asked.append((point, budget))
        if point.H == 32:
            raise RuntimeError("out of memory")
        seconds = point.length * 1e-6 if budget else None
        return {"seconds": seconds, "peak_mib": 400 + point.length // 8, "before_mib": 400}

    monkeypatch.setattr(points, "run", run)
    everything = points.all_points()
    chosen = [p for p in everything if p.H in (32, 96) and p.layers == 4]
    scaling.fill(records := scaling.load(tmp_path), chosen, out=tmp_path, budget=0.0)
    scaling.fill(records := scaling.load(tmp_path), chosen, out=tmp_path, budget=0.0)
    assert len(asked) == len(chosen) == len(set(chosen))
    scaling.fill(records := scaling.load(tmp_path), chosen, out=tmp_path, budget=1.0)
    assert len(asked) == 2 * len(chosen) and asked[-1][1] == 1.0
    text = page.write(records, tmp_path)
    assert "| float | 1.00 | 1.00 |" in text
    assert "failed: out of memory" in text
    assert all(
        (tmp_path / f"scaling.{kind}").stat().st_size > 500 for kind in ("md", "json", "png", "svg", "csv")
    )


def test_slope():
    assert page.slope([1.0, 2.0, 8.0], [3.0, 12.0, 192.0]) == pytest.approx(2.0)


def test_points_of_all_axes_differ_from_the_base_in_one_size():
    for axis, found in points.axes().items():
        base = dataclasses.asdict(points.BASE)
        allowed = {"width": {"H", "P"}, "threads": {"threads", "batch"}}.get(axis, {axis})
        for point in found:
            assert {k for k, v in dataclasses.asdict(point).items() if v != base[k]} <= allowed


def test_pathx_page(tmp_path: Path):
    common = {"limit_gib": 16.0, "commit": "c"}
    measured = {**common, "seconds": None, "first": 60.0, "peak_mib": 5000, "before_mib": 400}
    text = pathx.write(
        {"[32, true]": measured, "[32, false]": {**common, "error": "out of memory"}}, tmp_path
    )
    assert "| 32 | yes | 5000 | - | 60 | 16 |" in text and "failed: out of memory" in text
