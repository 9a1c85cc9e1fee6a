"""The figures' data, and that they are drawn."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reports.test_results import line
from tests.support import small_config

from qs5.cli import main
from qs5.cli.figures import nodes_of, qgelu_curves
from qs5.model.sites import sites_of
from qs5.reports import mackey_glass as study
from qs5.reports.figures import architecture, mackey_glass
from qs5.reports.results import result_of


def files(folder: Path, name: str) -> list[list[str]]:
    """The rows of a figure's CSV; its PNG and SVG are there and are pictures."""
    assert (folder / f"{name}.png").read_bytes()[1:4] == b"PNG"
    assert "<svg" in (folder / f"{name}.svg").read_text()
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    "changes", [{}, {"bidirectional": True, "activation": "full_glu", "head": "retrieval"}]
)
def test_figure_1_has_every_site_of_a_layer_once(changes: dict[str, Any]):
    config = small_config(layers=1, **changes)
    rows = list(architecture.rows_of(nodes_of(config)))
    assert sorted(row[0] for row in rows) == sorted(s.name for s in sites_of(config))
    roles = {s.name: s.role for s in sites_of(config)}
    assert all(roles[name] == role for name, _, role, *_ in rows)
    figure = architecture.draw(nodes_of(config), layers=3, title="t")
    drawn = {t.get_text() for t in figure.axes[0].texts}
    assert {s.name for s in sites_of(config) if not s.is_weight} <= drawn and "3 layers" in drawn


def test_figure_1_of_a_zoo_model(tmp_path: Path):
    assert main(["reproduce", "fig1", "-o", str(tmp_path)]) == 0
    rows = {row[0]: row for row in files(tmp_path, "fig1")}
    assert rows["layers.0.residual"][4] == "encoder layers.0.product"
    assert rows["decoder.weight"][3] == "96x10"


def test_figure_3_is_what_equation_3_says():
    """Integers by hand: both factors of x h(x) on their grids, largest |x| = 4, largest h = 1."""
    x, _, exact, curves = qgelu_curves()
    h = np.clip(x + 2.0, 0.0, 4.0) / 4.0
    for (rule, bits), got in curves.items():
        edge = 2.0 ** (bits - 1) - (1.0 if rule == "paper" else 0.5)
        high = 2.0 ** (bits - 1) - 1.0
        factors = []
        for v, step in ((x.astype(np.float64), 4.0 / edge), (h.astype(np.float64), 1.0 / edge)):
            factors.append(np.clip(np.round(v / step), -high, high) * step)
        expected = factors[0] * factors[1]
        # A value that lies between two codes may go either way in float32.
        assert np.mean(np.abs(got - expected) < 1e-5) > 0.99
    np.testing.assert_allclose(curves["aqt", 4][-1] / exact[-1], 0.871, atol=5e-4)  # 0.9333 squared
    np.testing.assert_allclose(curves["paper", 4][-1], exact[-1], rtol=1e-6)


def test_figure_3_is_written_with_its_data(tmp_path: Path):
    assert main(["reproduce", "fig3", "-o", str(tmp_path)]) == 0
    header, *rows = files(tmp_path, "fig3")
    assert header[:4] == ["x", "gelu", "qgelu", "paper_8"] and len(header) == 9 and len(rows) == 401


def mackey_glass_run(value: float, **extra: Any):
    return result_of(
        line(task="mackey_glass", metric="smape", value=value, seed=extra.pop("seed", 0), extra=extra), {}
    )


def test_figure_2_from_records(tmp_path: Path):
    results = [
        mackey_glass_run(20.0, tau=1, bits=None),
        mackey_glass_run(30.0, tau=1, bits=None, seed=1),
        mackey_glass_run(40.0, tau=1, bits=4, panel="b"),
        mackey_glass_run(44.0, tau=9, bits=4, panel="b"),
        result_of(line(), {}),
    ]
    points = study.points_of(results)
    assert [(p.panel, p.bits, p.tau, p.values) for p in points] == [
        ("b", 4, 1.0, (40.0,)), ("b", 4, 9.0, (44.0,)), ("float", None, 1.0, (20.0, 30.0))
    ]  # fmt: skip
    rows = {row[:3]: row[3:] for row in mackey_glass.rows_of(points, {("b 4", 1.0): 1.0}, taus=(1.0, 9.0))}
    assert len(rows) == 17 * 2
    assert rows["b", "4", "1"] == ("1", "40.00", "40.00", "40.00", "", "0", "1", "")
    assert rows["float", "float", "1"] == ("2", "25.00", "20.00", "30.00", "", "0", "", "")
    not_run = ("0", "", "", "", "", "0", "", "python -m benchmarks.mackey_glass run --panels a --bits 8")
    assert rows["a", "8", "9"] == not_run
    figure = mackey_glass.draw_errors(points, {("b 4", 1.0): 1.0})
    assert len(figure.axes) == 4


def test_figure_2_as_a_command(tmp_path: Path):
    records = [
        line(task=task, metric="smape", value=v, seed=seed, extra={"tau": tau, "bits": None, "recipe": "r"})
        for task, tau, seed, v in (
            ("mackey_glass", 1, 0, 20.0), ("mackey_glass", 1, 1, 22.0), ("mackey_glass-ahead", 9, 0, 90.0)
        )
    ]  # fmt: skip
    (tmp_path / "mg.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert main(["reproduce", "fig2", "--results", str(tmp_path), "-o", str(tmp_path)]) == 0
    header, *rows = files(tmp_path, "fig2")
    first = dict(zip(header, rows[0], strict=True))
    assert len(rows) == 17 * 8
    assert (first["mean"], first["paper"], first["runs"]) == ("21.00", "19", "2")
    assert "135 of 136 points not run" in (tmp_path / "fig2.svg").read_text()
    ahead = files(tmp_path, "fig2_ahead")
    assert ahead[2][4] == "90.00" and ahead[1][-1].endswith("run --panels float --form ahead")


def test_figure_4_from_samples(tmp_path: Path):
    path = tmp_path / "mackey_glass_samples.csv"
    path.write_text("tau,step,channel_0\n" + "".join(f"{t},{k},0.{k}\n" for t in (1, 9) for k in range(5)))
    assert main(["reproduce", "fig4", "--results", str(tmp_path), "-o", str(tmp_path)]) == 0
    assert len(files(tmp_path, "fig4")) == 11


@pytest.mark.parametrize(("name", "said"), [("fig2", "no Mackey-Glass runs"), ("fig4", "expected")])
def test_a_figure_without_records_says_what_is_missing(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["reproduce", name, "--results", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_tables_are_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str], repository: Path):
    args = ["reproduce", "table5", "--results", str(repository / "results")]
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert main([*args, "-o", str(tmp_path / "t.md")]) == 0
    assert (tmp_path / "t.md").read_text() in printed
