"""The report and the comparison: whole, self-contained, escaped, and made from whatever a folder holds."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers.page import Page

from jaxformer.errors import UserError
from jaxformer.observe import plots
from jaxformer.observe.comparison import compare_runs, config_differences
from jaxformer.observe.pages import chart
from jaxformer.observe.report import most_confused, write_report
from jaxformer.runs import Run, config_leaves


def page(path):
    return Page(path.read_text())


def test_a_finished_runs_report_has_every_part_and_loads_nothing(make_run):
    folder = make_run()
    path = write_report(folder)
    assert path == folder / "report.html"
    report = page(path)
    assert all(load.startswith(("data:", "#")) for load in report.loads)
    assert not re.search(r"@import|url\((?!#)", path.read_text())
    for part in (
        "vit_digits",
        "completed",
        "Curves",
        "Samples",
        "Worst mistakes",
        "Confusion matrix",
        "Calibration",
    ):
        assert part in report.text
    for part in ("precision", "Time", "compile 5.2 s", "optimizer.learning_rate = 0.001", "9189446d1f0c"):
        assert part in report.text
    for part in (
        "jaxformer train --config configs/vit_digits.py",
        "18.3%",
        "peak: measured here",
        "best 0.88",
    ):
        assert part in report.text
    assert report.tags.count("img") == 2 * 8 * 3  # picture, rollout and heads of samples and mistakes
    assert report.text.count("✗") >= 8


@pytest.mark.parametrize("missing", ["result.json", "evaluation.json", "samples", "metrics.jsonl"])
def test_what_a_folder_lacks_is_left_out(make_run, missing):
    folder = make_run()
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = page(write_report(folder))
    shows = {
        "result.json": "completed" in report.text,
        "evaluation.json": "Confusion matrix" in report.text,
        "samples": "Worst mistakes" in report.text,
        "metrics.jsonl": "Curves" in report.text,
    }
    assert shows == {name: name != missing for name in shows}
    assert "optimizer.learning_rate" in report.text


def test_a_run_that_has_only_begun_has_a_report(make_run):
    folder = make_run()
    for name in ("result.json", "evaluation.json", "metrics.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "samples")
    report = page(write_report(folder))
    assert "not finished" in report.text
    assert "svg" not in report.tags


def test_a_preempted_run_shows_the_curves_latest_values(make_run):
    folder = make_run()
    (folder / "evaluation.json").unlink()
    result = json.loads((folder / "result.json").read_text())
    result |= {"status": "preempted", "final": {}, "best": None, "examples_per_second": None, "mfu": None}
    (folder / "result.json").write_text(json.dumps(result))
    report = page(write_report(folder))
    assert "preempted" in report.text
    assert f"{Run.open(folder).curves['eval/accuracy'][1][-1]:.4f}" in report.text
    assert "MFU" not in report.text


def test_everything_is_escaped(make_run):
    evil = "<script>alert('&')</script>"
    names = [evil, '"><img src=x onerror=alert(1)>', "$x^2$", "名前", "a" * 100, *"56789"]
    folder = make_run("a<b>&c", class_names=names, data={"name": evil, "batch_size": 128})
    report = page(write_report(folder))
    assert report.tags.count("script") == 1  # the page's own
    assert "x" not in report.loads
    assert evil in report.text
    assert "$x^2$" in report.text
    assert "名前" in report.text
    output = folder.parent / "comparison.html"
    compare_runs([folder], output)
    assert page(output).tags.count("script") == 1


def test_values_that_are_not_finite_do_not_stop_the_report(make_run):
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 670, "time": 1, "train/loss": "NaN", "eval/loss": "Infinity", "train/odd": "NaN"}\n'
        )
    report = page(write_report(folder))
    assert "odd" not in report.text
    hover = re.search(r'data-hover="([^"]*)"', (folder / "report.html").read_text())[1]
    lines = json.loads(hover.replace("&quot;", '"'))["lines"]
    assert max(step for step, _ in lines[0]["points"]) == 660


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no such folder"),
        (lambda folder: (folder / "config.json").unlink(), r"not a run's folder \(no config.json in it\)"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json: lacks config"),
        (lambda folder: (folder / "result.json").write_text("{}"), "result.json: lacks status, step"),
        (lambda folder: (folder / "evaluation.json").write_bytes(b"\xff"), "evaluation.json: cannot be read"),
    ],
)
def test_a_folder_that_is_no_run_is_a_mistake_with_a_remedy(make_run, break_it, message):
    folder = make_run()
    break_it(folder)
    with pytest.raises(UserError, match=message):
        write_report(folder)


def test_a_broken_samples_folder_is_passed_over(make_run):
    folder = make_run()
    (folder / "samples" / "samples" / "samples.json").write_text("{")
    (folder / "samples" / "mistakes" / "000.png").unlink()
    report = page(write_report(folder))
    assert "Worst mistakes" in report.text
    assert report.tags.count("img") == 8 * 3 - 1


def test_a_comparison_shows_where_configs_differ_and_no_more(make_run):
    adamw = {"name": "adamw", "learning_rate": 0.003, "weight_decay": 0.05}
    runs = [make_run("first"), make_run("second", scale=0.7, optimizer=adamw), make_run("third", seed=1)]
    output = runs[0].parent / "comparison.html"
    table = compare_runs(runs, output).splitlines()
    columns = [cell.strip() for cell in table[0].strip("|").split("|")]
    assert columns == ["run", "best", "parameters", "FLOPs/example", "examples/s", "time"]
    assert set(table[1]) == set("| -")
    assert re.fullmatch(
        r"\| second \| accuracy 0\.\d{4} \| 5\.72M +\| 1\.08G +\| 2,683 +\| 44 s +\|", table[3]
    )
    comparison = page(output)
    assert all(load.startswith(("data:", "#")) for load in comparison.loads)
    assert config_differences([Run.open(run) for run in runs]) == {
        "optimizer.learning_rate": ["0.001", "0.003", "0.001"],
        "seed": ["0", "0", "1"],
    }
    assert "optimizer.learning_rate" in comparison.text
    assert "weight_decay" not in comparison.text
    for part in ("first", "second", "third", "eval/accuracy", "examples/s", "0.3100", "0.2170"):
        assert part in comparison.text


def test_runs_of_different_kinds_and_states_compare(make_run):
    runs = [make_run("a/run"), make_run("b/run", model={"name": "resnet", "depth": 18})]
    (runs[1] / "result.json").unlink()
    (runs[1] / "metrics.jsonl").unlink()
    table = compare_runs(runs, runs[0].parent / "comparison.html")
    assert [cell.strip() for cell in table.splitlines()[-1].split("|")[3:]] == [""] * 5
    comparison = page(runs[0].parent / "comparison.html")
    assert str(runs[0]) in comparison.text  # same names: told apart by their paths
    assert "not finished" in comparison.text
    differences = config_differences([Run.open(run) for run in runs])
    assert differences["model.width"] == ["64", ""]
    with pytest.raises(UserError, match="nothing to compare"):
        compare_runs([], runs[0].parent / "comparison.html")


def test_config_leaves_name_the_places_in_lists():
    config = {"a": {"b": [{"c": 1}, {"c": 2}], "d": [1, 2], "e": {}}, "f": None}
    leaves = {"a.b[0].c": 1, "a.b[1].c": 2, "a.d": [1, 2], "a.e": {}, "f": None}
    assert dict(config_leaves(config)) == leaves


def test_long_curves_are_thinned_to_means():
    steps = np.arange(10_000)
    thin_steps, thin = plots.thinned(steps, np.where(steps % 2 == 0, 1.0, 3.0))
    assert len(thin) == plots.MOST_POINTS
    np.testing.assert_allclose(thin, 2.0, atol=0.1)
    assert thin_steps[-1] == 9_999
    holes = np.full(10_000, np.nan)
    holes[5_000:] = 1.0
    thin = plots.thinned(steps, holes)[1]
    assert np.isnan(thin[0])
    assert thin[-1] == 1.0


def test_plots_take_the_pages_colour_and_leave_matplotlib_as_it_was(digits):
    import matplotlib

    before = dict(matplotlib.rcParams)
    many = 300
    confusion = np.eye(many, dtype=int) * 7
    svgs = [
        plots.curves("loss", {"train": (np.array([1, 2]), np.array([1.0, 1e-4]))}),
        plots.curves("empty", {"train": (np.array([], int), np.array([]))}),
        plots.confusion_matrix(confusion, [f"class {k}" for k in range(many)]),
        plots.class_bars([f"class {k}" for k in range(many)], np.linspace(0, 1, many).tolist(), "F1"),
        plots.reliability([{"confidence": 0.0, "accuracy": 0.0, "count": 0}]),
    ]
    for svg in svgs:
        assert svg.startswith("<svg")
        assert "currentColor" in svg
        assert plots.INK not in svg
        assert len(svg) < 300_000
    assert "class 299" not in svgs[3]  # of many classes, the worst
    assert dict(matplotlib.rcParams) == before


def test_pairs_of_classes_that_are_confused_most(make_run):
    folder = make_run()
    evaluation = json.loads((folder / "evaluation.json").read_text())
    names = ["cat", "dog", "<owl>"]
    evaluation |= {"class_names": names, "confusion": [[5, 3, 0], [1, 9, 0], [4, 0, 4]]}
    assert most_confused(evaluation) == [
        {"true": "<owl>", "predicted": "cat", "count": "4", "share": "50.0%"},
        {"true": "cat", "predicted": "dog", "count": "3", "share": "37.5%"},
        {"true": "dog", "predicted": "cat", "count": "1", "share": "10.0%"},
    ]
    assert most_confused({"confusion": [[3, 0], [0, 2]]}) == []
    assert most_confused({}) == []
    many = np.arange(400).reshape(20, 20)
    assert [pair["count"] for pair in most_confused({"confusion": many.tolist()})] == [
        str(count) for count in (398, 397, 396, 395, 394, 393, 392, 391, 390, 389)
    ]
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    assert "<owl> cat 4 50.0%" in page(write_report(folder)).text


def test_tables_of_texts(make_run):
    folder = make_run()
    tables = {
        "loss_by_position": [{"position": i + 0.5, "loss": 3 - i / 9, "count": 7} for i in range(0, 20, 2)],
        "notes": ["BLEU: nrefs:1|case:mixed", "<script>"],
        "per_class": [
            {"name": "person", "precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 12},
            {"name": "nothing", "support": 3},
        ],
    }
    evaluation = {"step": 9, "metrics": {"bleu": 31.2444, "perplexity": 15.98}, **tables}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "result.json").unlink()
    report = page(write_report(folder))
    assert "Loss by position" in report.text
    assert "BLEU: nrefs:1|case:mixed" in report.text
    assert report.tags.count("script") == 1
    assert "person 0.5000 0.2500 0.3333 12" in report.text
    assert "nothing 3" in report.text
    assert "bleu 31.24" in report.text
    assert "perplexity 15.98" in report.text
    assert "31.24%" not in report.text
    assert "Confusion" not in report.text
    assert "Most confused" not in report.text


@pytest.mark.parametrize(
    "values", [(0.68370, 0.68375), (1.001e-5, 1.002e-5), (-123.456, -123.457), (1e-7, 1e-2), (0, 1)], ids=str
)
def test_the_labels_of_an_axis_are_not_cut(values, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "to_svg", lambda figure, label: figures.append(figure) or "")
    plots.curves("loss", {"train": (np.arange(2), np.array(values))})
    (figure,) = figures
    figure.canvas.draw()
    box = figure.axes[0].get_tightbbox()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


def test_the_learning_rate_is_on_a_linear_axis(monkeypatch):
    asked = {}

    def curves(title, lines, *, colours, linear):
        asked[title] = linear
        return ""

    monkeypatch.setattr(plots, "curves", curves)
    for metric in ("train/learning_rate", "learning_rate", "train/loss"):
        chart(metric, {})
    assert asked == {"train/learning rate": True, "learning rate": True, "train/loss": False}


def test_an_axis_is_logarithmic_over_decades_unless_it_is_to_be_linear():
    steps = np.arange(5)
    lines = {"train": (steps, 10.0**-steps)}

    def heights(svg):
        points = re.search(r'<path d="(M [^"]*)" clip-path="[^"]*" style="fill: none; stroke: #2f7de1', svg)[
            1
        ]
        return [float(pair.split()[1]) for pair in re.split(r"[ML]", points)[1:]]

    assert np.ptp(np.diff(heights(plots.curves("a", lines)))) < 0.1  # even steps
    assert np.diff(heights(plots.curves("a", lines, linear=True)))[-1] < 0.5
