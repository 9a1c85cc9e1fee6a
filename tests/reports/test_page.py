"""The report: from files alone, to one page that needs nothing else."""

import dataclasses
import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reports.test_results import line
from tests.support import small_config, small_model, small_recipe, small_task

from qs5.cli import main
from qs5.cli.inspection import save_inspection
from qs5.cli.precision import precision_of
from qs5.model.arithmetic import FloatArithmetic
from qs5.model.sites import sites_of
from qs5.quantization.build import arithmetic_for_spec, eigenvalue_codes, prepared
from qs5.quantization.calibration import CalibrationStats
from qs5.quantization.grids import GridPlan
from qs5.quantization.site_report import eigenvalues, weight_arrays
from qs5.quantization.spec import spec_of, to_json
from qs5.reports import runs as report_runs, svg
from qs5.reports.page import render
from qs5.reports.runs import RunData
from qs5.reports.weights import Weight, mean_bits, numbers, stored_bytes
from qs5.training import methods, record, run

VOID = {"meta", "br", "line", "circle", "rect", "polyline"}


class Checker(HTMLParser):
    """Every tag that is opened is closed, and nothing points outside of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe")
        assert not {"src", "href", "onclick"} & {name for name, _ in attrs}
        self.found.append(tag)
        if tag not in VOID or tag == "circle":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


TASK = small_task()
MODEL = small_model(d_in=1, d_out=3, dropout=0.1)


@pytest.fixture(scope="module")
def stats() -> CalibrationStats:
    return methods.calibration_stats(MODEL, TASK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, stats: CalibrationStats) -> Path:
    """A float run with two epochs on record and a quantized one, judged and inspected, without any training."""
    root = tmp_path_factory.mktemp("runs")
    info = run.info_of(run.complete(small_recipe(), TASK), TASK)
    run.write_run(root / "float", info, MODEL)
    spec = spec_of("W4A8").replace(rounding="nearest")  # not reconstructed, which takes long
    quantized = methods.ptq(MODEL, TASK, spec, parent=info, name="float", out=root / "w4a8").info
    for name, i in (("float", info), ("w4a8", quantized)):
        save_inspection(root / name, MODEL, i, stats)
        result = judged(i.method, 0.625, extra={"confusion": [[2, 1, 0], [0, 2, 0], [1, 1, 1]]})
        epochs = [result | {"epoch": e, "split": "validation", "train_loss": 1.0 / e} for e in (1, 2)]
        records = [*(epochs if name == "float" else []), result]
        (root / name / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return root


def read_runs(folder: Path, name: str) -> list[RunData]:
    return report_runs.read_runs(folder, name, precision_of=lambda path: precision_of(run.read_run(path)))


def copied(folder: Path, to: Path, *records: dict[str, Any], **changes: Any) -> RunData:
    """A run with other records, and with other values in its run.json, read again."""
    to.mkdir()
    info = json.loads((folder / "run.json").read_text())
    (to / "run.json").write_text(json.dumps(info | changes))
    (to / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return read_runs(to, to.name)[0]


def judged(method: str, value: float = 0.5, **changes: Any) -> dict[str, Any]:
    found = line(task="small", method=method, value=value, loss=0.5, machine="m", time="t", epoch=None)
    return found | changes


def page_of(runs: list[RunData]) -> str:
    text = render(runs, command="qs5 report", commit="abc", title="<title> & more")
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert "http" not in text and "url(" not in text and "@import" not in text
    return text


def test_the_page_shows_what_the_files_hold(folder: Path):
    runs = read_runs(folder, "runs")
    assert [r.name for r in runs] == ["float", "w4a8"]
    text = page_of(runs)
    assert "&lt;title&gt; &amp; more" in text
    result = runs[1].judged
    assert result is not None and f"{100 * result['value']:.2f} %" in text
    assert text.count("<polyline") == 3  # two losses and a metric
    assert text.count('aria-label="eigenvalues of layer') == 4
    assert text.count('aria-label="moduli of layer') == 4
    assert text.count('class="spark"') == 2 * len(sites_of(small_config(d_in=1, d_out=3)))
    assert text.count('aria-label="confusion matrix"') == 2
    header, _, second = re.findall(r"<tr>(.*?)</tr>", text)[:3]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in (header, second)]
    values = dict(zip(*cells, strict=True))
    assert "model.qs5" not in values  # neither run has been lowered
    assert "<td class=words>ptq, deployable</td>" in second and f"<td>{values['test']}</td>" in second
    assert (values["run"], values["method"], values["spec"]) == ("w4a8", "ptq, deployable", "W4A8")
    assert values["test"] == f"{100 * result['value']:.2f} %"
    assert "started from <code>float</code>" in text and "outside" in text


def test_names_are_text_and_never_tags(folder: Path):
    text = page_of([dataclasses.replace(r, name="<b>&") for r in read_runs(folder, "runs")])
    assert "<b>" not in text and text.count("&lt;b&gt;&amp;") >= 4


def test_a_run_that_was_neither_judged_nor_inspected_says_how(folder: Path, tmp_path: Path):
    (tmp_path / "run.json").write_text((folder / "float" / "run.json").read_text())
    text = page_of(read_runs(tmp_path, "bare"))
    assert "not judged" in text and "qs5 inspect bare --save" in text and "qs5 evaluate bare" in text
    assert "Which command made it is not on record." in text


def test_a_quantized_run_that_was_not_judged_has_the_command_that_made_it(folder: Path, tmp_path: Path):
    made = json.loads((folder / "w4a8" / "run.json").read_text())["made"]
    assert set(made) == {"command", "commit", "machine", "time"} and made["command"] == record.command_line()
    fresh = copied(folder / "w4a8", tmp_path / "fresh", made=made | {"command": "qs5 quantize a&b"})
    text = page_of([fresh])
    assert "Quantized by <code>qs5 quantize a&amp;b</code> at commit" in text
    assert "Not judged on test data yet: <code>qs5 evaluate fresh</code>" in text
    assert "not on record" not in text


def test_commands_for_the_runs_of_a_sweep_name_its_folder(folder: Path, tmp_path: Path):
    copied(folder / "w4a8", tmp_path / "a b")
    text = page_of(read_runs(tmp_path, "runs/sweep"))
    assert "<h2>a b</h2>" in text and "qs5 evaluate &#x27;runs/sweep/a b&#x27;" in text


def test_a_zoo_model_gets_no_command_that_would_write_to_it(folder: Path, tmp_path: Path):
    text = page_of([dataclasses.replace(copied(folder / "float", tmp_path / "zoo"), shipped=True)])
    assert "--save" not in text and "qs5 inspect zoo" in text


@pytest.mark.parametrize(
    "records",
    [
        [judged("qaft", math.nan, loss=math.nan, extra={"diverged": True})],
        [judged("qaft", 0.1, loss=math.nan)],  # logits of NaN have an accuracy
        [judged("qaft", 0.1, loss=math.nan, epoch=1, split="validation", train_loss=math.nan)],
    ],
    ids=["says so", "loss of NaN", "epochs only"],
)
def test_a_run_whose_training_diverged_says_so(records: list[dict[str, Any]], folder: Path, tmp_path: Path):
    gone = copied(folder / "w4a8", tmp_path / "gone", *records)
    assert gone.diverged and gone.result is None
    text = page_of([*read_runs(folder, "runs"), gone])
    assert len(re.findall(r"<td[^>]*>diverged</td>", text)) == 1
    assert "Its training diverged" in text and "nan" not in text
    assert "ot judged" not in text and "evaluate gone" not in text and "inspect gone" not in text


def test_a_training_with_one_good_epoch_has_not_diverged(folder: Path, tmp_path: Path):
    epochs = [
        judged("fp", 0.1, loss=loss, epoch=e, split="validation", train_loss=1.0)
        for e, loss in ((1, 0.5), (2, math.nan))
    ]
    started = copied(folder / "float", tmp_path / "started", *epochs)
    assert not started.diverged and "not judged" in page_of([started])


# -- bits a weight ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"bidirectional": True, "activation": "full_glu", "head": "retrieval"}, {"conj_sym": False}],
    ids=["plain", "everything", "all modes"],
)
def test_sizes_are_those_of_the_weights_themselves(changes: dict[str, Any]):
    model = small_model(**changes)
    info = run.RunInfo(recipe=dataclasses.replace(small_recipe(), model=model.config))
    sizes = {name: array.size for name, array in weight_arrays(model).items()}
    assert {w.site: w.numbers for w in precision_of(info).weights} == sizes


def test_bits_are_the_mean_over_numbers_and_float_has_32():
    weights = [
        Weight(site=str(i), component="c", numbers=n, bits=bits)
        for i, (n, bits) in enumerate([(8, 4), (2, None), (6, 1)])
    ]
    assert numbers(weights) == 16
    assert stored_bytes(weights) == (8 * 4 + 2 * 32 + 6 * 1) / 8
    assert mean_bits(weights) == (8 * 4 + 2 * 32 + 6 * 1) / 16


def test_rules_for_single_sites_count_in_the_bits_of_a_run(folder: Path, tmp_path: Path):
    """W4A8 with all weights of 8 bits by rules stands where W8A8 does; with two of them it stands between."""
    rules = {
        "names": "layers.*.weight=8,*coder.weight=8,*.y.C=8,*.y.D=8",
        "some": "layers.0.ssm.y.C=6,decoder.weight=float",
    }
    read = {
        name: copied(folder / "w4a8", tmp_path / name, judged("ptq"), spec=to_json(spec_of(f"W4A8,{text}")))
        for name, text in rules.items()
    }
    assert mean_bits(read["names"].precision.weights) == 8
    sizes = {name: array.size for name, array in weight_arrays(MODEL).items()}
    more = 2 * sizes["layers.0.ssm.y.C"] + 28 * sizes["decoder.weight"]
    expected = 4 + more / sum(sizes.values())
    assert mean_bits(read["some"].precision.weights) == pytest.approx(expected, rel=1e-12)
    text = page_of([*read_runs(folder, "runs"), *read.values()])
    row = next(r for r in re.findall(r"<tr>(.*?)</tr>", text) if "<td class=words>some</td>" in r)
    assert f"<td>{expected:.2f}</td>" in row
    places = {
        name: float(x) for x, name in re.findall(r'points="([\d.]+),[^"]*"[^>]*><title>ptq ([^:]*)', text)
    }
    w4a8, some, names = (
        next(x for n, x in places.items() if n.startswith(start))
        for start in ("W4A8, seed", "W4A8,layers.0.ssm", "W4A8,layers.*")
    )
    assert math.log(expected / 4) / math.log(2) == pytest.approx((some - w4a8) / (names - w4a8), abs=0.01)
    assert "c6/4" in text and "(4, 32)" in text


def test_the_two_ways_are_two_series_that_differ_without_colour_too(folder: Path, tmp_path: Path):
    paper = copied(
        folder / "w4a8", tmp_path / "paper", judged("ptq"), spec=to_json(spec_of("W4A8,schedule=parallel"))
    )
    text = page_of([*read_runs(folder, "runs"), paper])
    chart = re.findall(r'<svg class="chart"[^>]*aria-label="test metric against bits">.*?</svg>', text)[0]
    for label in ("fp", "ptq, deployable", "ptq, the paper&#x27;s way"):
        assert f">{label}</text>" in chart
    marks = re.findall(r"<(circle|polygon) ([^>]*)>", chart)
    assert len(marks) == 6  # three runs, three in the legend
    assert len({_outline(kind, attributes) for kind, attributes in marks}) == 3


def _outline(kind: str, attributes: str) -> str:
    """A mark's shape, wherever it stands, without its colour."""
    if kind == "circle":
        return kind
    points = [tuple(map(float, p.split(","))) for p in re.findall(r"[\d.]+,[\d.]+", attributes)]
    return str([(round(x - points[0][0]), round(y - points[0][1])) for x, y in points])


def test_results_of_other_tasks_have_axes_of_their_own(folder: Path, tmp_path: Path):
    others = [
        copied(folder / "float", tmp_path / f"other{i}", judged("fp", 1.5, task="other", metric="rmse"))
        for i in range(2)
    ]
    runs = read_runs(folder, "runs")
    text = page_of([*runs, *others])
    assert text.count('aria-label="test metric against bits"') == 2
    assert "small: test accuracy" in text and "other: test rmse; all of them fp" in text
    assert "against bits" not in page_of(runs[:1])  # one point compares nothing


def test_inspection_counts_every_value_once(folder: Path, stats: CalibrationStats):
    found = json.loads((folder / "w4a8" / "inspection.json").read_text())
    weights = weight_arrays(MODEL)
    assert [site["site"] for site in found["sites"]] == [s.name for s in sites_of(MODEL.config)]
    for site in found["sites"]:
        is_weight = "size" in site
        values = weights[site["site"]] if is_weight else stats.ranges[site["site"]].sample
        largest = np.abs(values) if is_weight else stats.ranges[site["site"]].largest
        assert sum(site["histogram"]) == np.size(values)
        assert ("saturated" in site) == (site["site"] in stats.ranges)
        assert site["largest"] == pytest.approx(float(np.max(largest)), rel=1e-6)
    assert (found["parameters"], found["examples"]) == (MODEL.parameter_count, stats.examples)


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_eigenvalues_after_quantization_lie_on_the_grid_of_the_spec(schedule: str):
    model, spec = small_model(), spec_of(f"W4A8,schedule={schedule}")
    arithmetic = arithmetic_for_spec(spec, model.config, GridPlan((), "", 0))
    for before, after in eigenvalues(model, arithmetic):
        assert after is not None and before.shape == after.shape == (4, 2)
        for columns in [[0, 1]] if schedule == "sequential" else [[0], [1]]:
            step = np.max(np.abs(before[:, columns])) / 7.0
            codes = after[:, columns] / step
            np.testing.assert_allclose(codes, np.round(codes), atol=2e-3)  # the step is a 15-bit multiplier
            assert np.max(np.abs(after[:, columns] - before[:, columns])) <= 0.51 * step
    assert all(after is None for _, after in eigenvalues(model, FloatArithmetic()))


def test_eigenvalues_in_polar_form_are_those_that_the_codes_decode_to():
    spec = spec_of("W4A8,form=polar")
    model = prepared(small_model(), spec)
    codes = eigenvalue_codes(model, spec)
    arithmetic = arithmetic_for_spec(spec, model.config, GridPlan((), "", 0, codes))
    for (_, after), (_, coded) in zip(eigenvalues(model, arithmetic), codes, strict=True):
        np.testing.assert_array_equal(after, np.stack(coded.operands(), axis=-1) / 2**15)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (93, 107, [94, 96, 98, 100, 102, 104, 106])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]):
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_charts_are_well_formed_and_keep_points_inside():
    series = svg.Series(
        label="a<b", x=[1, 2, 3], y=[0.1, float("nan"), 0.3], marks=True, names=["<1>", "2", "3"]
    )
    line = svg.Series(label="b", x=[1, 2, 3], y=[5, 6, 7])
    root = ET.fromstring(svg.chart([series, line], x="x", y="y", log_x=True, title='"t"'))
    marks = [e for e in root.iter() if e.tag == "circle"]
    assert len(marks) == 3  # two points, what is not finite is left out, and one in the legend
    for mark in marks[:2]:
        assert (
            svg.LEFT <= float(mark.attrib["cx"]) <= svg.WIDTH and 0 <= float(mark.attrib["cy"]) <= svg.HEIGHT
        )
    assert svg.chart([], x="x", y="y") == ""
    every = [svg.Series(label=str(i), x=[1], y=[i], marks=True) for i in range(len(svg.COLOURS))]
    found = re.findall(r"<(circle|polygon) ([^>]*)>", svg.chart(every, x="x", y="y"))
    assert len({_outline(*mark) for mark in found}) == len(every) and len(found) == 2 * len(every)


def test_one_epoch_is_a_mark_and_epochs_have_no_halves():
    one = ET.fromstring(svg.chart([svg.Series(label="a", x=[1], y=[0.5])], x="epoch", y="y"))
    assert [e.tag for e in one.iter() if e.tag in ("circle", "polyline")] == ["circle"]
    two = ET.fromstring(svg.chart([svg.Series(label="a", x=[1, 2], y=[0.5, 0.6])], x="epoch", y="y"))
    below = [
        e.text
        for e in two.iter()
        if e.tag == "text" and e.attrib["y"] == f"{svg.HEIGHT - svg.BOTTOM + 15:.1f}"
    ]
    assert below == ["1", "2"]


@pytest.mark.parametrize(
    ("bits", "expected"), [((4.3, 4.4), ["4", "8"]), ((4, 4), ["4", "8"]), ((3, 9), ["2", "4", "8", "16"])]
)
def test_bits_have_two_ticks_at_least(bits: tuple[float, float], expected: list[str]):
    drawing = svg.chart([svg.Series(label="a", x=bits, y=[1, 2], marks=True)], x="", y="", log_x=True)
    place = f'y="{svg.HEIGHT - svg.BOTTOM + 15:.1f}" text-anchor="middle">'
    assert re.findall(re.escape(place) + "([^<]*)<", drawing) == expected


def test_other_drawings_are_well_formed():
    disc = ET.fromstring(svg.unit_disc([[0.5, 0.5]], [[0.9, 0.9], [0.1, 0.0]], "t"))
    assert [e.attrib["fill"] for e in disc.iter() if e.attrib.get("r") == "2.2"] == [
        "#c00000",
        svg.COLOURS[1],
    ]
    ET.fromstring(svg.confusion([[3, 0], [1, 2]], ["yes & no", "b"]))
    ET.fromstring(svg.histogram([0, 4, 1], reach=1.25, limits=True))


def test_on_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run_python: Any
):
    out = tmp_path / "report.html"
    code = (
        "import sys; from pathlib import Path; from qs5.reports import page, runs, weights;"
        "some = weights.Precision(weights=(weights.Weight(site='', component='', numbers=1, bits=1),), widths='');"
        f"found = runs.read_runs(Path({str(folder)!r}), 'runs', precision_of=lambda _: some);"
        "page.render(found, command='', commit='', title=''); print('jax' in sys.modules)"
    )
    assert run_python(code).strip() == "False"
    assert main(["report", str(folder / "w4a8"), "smnist-float", "-o", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 2 runs")
    assert re.search(r"<h2>smnist-float</h2>", out.read_text())
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "none.html")]) == 2
    assert (
        "expected a run (a folder with run.json), a sweep's folder or a zoo model" in capsys.readouterr().err
    )
