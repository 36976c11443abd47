"""The page of a sweep: whole, self-contained, escaped, and sensible whatever the trials gave."""

import csv
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers.made_sweep import made_sweep
from helpers.page import Page
from scipy.stats import ttest_1samp

from jaxformer import cli
from jaxformer.errors import UserError
from jaxformer.sweeps.axes import axes_of
from jaxformer.sweeps.importance import importances
from jaxformer.sweeps.report import in_lines, spread, write_report
from jaxformer.sweeps.spaces import Halving, Sweep, choice, integer, log, uniform
from jaxformer.sweeps.study import Study

RATE, DEPTH, NAME = "optimizer.learning_rate", "model.depth", "optimizer.name"
HOSTILE = "</script><script>alert('a')</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def accuracy(values, seed, step):
    """The best rate is 0.01; one that is too large fails."""
    rate = values.get(RATE, 0.01)
    if rate > 0.3:
        raise ValueError(f"not finite {HOSTILE}")
    return (0.9 - 0.1 * abs(math.log10(rate) + 2) + 0.01 * seed) * step / 90


SPACE = {
    RATE: choice([0.001, 0.01, 0.1, 0.5]),
    DEPTH: integer(2, 3),
    NAME: choice({"adamw": {"optimizer.b2": choice([0.95, 0.99])}, HOSTILE: {}}),
}


def written(study, command=None):
    """The page, its data, and the study's outcome."""
    html = write_report(study, command).read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    return html, Page(html), json.loads(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """24 trials with two seeds and halving, a quarter of which fail."""
    folder = tmp_path_factory.mktemp("sweeps") / "made"
    return made_sweep(folder, Sweep(SPACE, seeds=2, halving=Halving(3, 2)), accuracy, seeds=(0, 1))


def test_a_finished_sweep_has_every_part_and_loads_nothing(made):
    html, page, data = written(made, ["jaxformer", "train", "--config", "x y", "--config.seed=0"])
    outcome = made.outcome()
    best = outcome["trials"][0]
    assert best["values"][RATE] == 0.01
    for part in (
        "finished",
        "Best trial",
        "Learning",
        "Parameters",
        "Importance",
        "Seeds",
        "Trials",
        "Why trials failed",
    ):
        assert part in page.text
    assert "24 trials with 2 seeds each" in page.text
    assert "--config 'x y' \\\n    --config.seed=0" in html.replace("&#39;", "'")
    assert [int(number) for number in re.findall(r'<tr data-trial="(\d+)"', html)] == [
        trial["trial"] for trial in outcome["trials"]
    ]
    own = {"trials.csv", "trials.json", "data:,"}
    reports = {link for link in page.loads if link.startswith("trials/")}
    assert set(page.loads) == own | reports
    assert len(reports) == 2 * sum(trial["status"] == "completed" for trial in outcome["trials"])
    assert all((made.folder / link).exists() for link in reports)
    assert not re.search(r"https?://(?!www\.w3\.org)", html)  # the name of SVG alone
    first = data["trials"][0]
    assert first["trial"] == best["trial"]
    assert first["curve"][-1] == [90, pytest.approx(0.905)]
    assert [trial["place"] for trial in data["trials"]] == [*range(1, 19), *[None] * 6]


def test_text_from_outside_stays_text(made):
    html, page, data = written(made)
    assert "<script>alert" not in html
    assert page.tags.count("script") == 3
    assert HOSTILE in page.text.replace("\\n", "")
    assert HOSTILE in data["axes"][2]["values"]


def test_the_files_beside_the_page_have_what_study_json_has(made):
    write_report(made)
    content = json.loads((made.folder / "trials.json").read_text())
    with (made.folder / "trials.csv").open() as file:
        lines = list(csv.DictReader(file))
    outcome = made.outcome()
    assert [row["trial"] for row in content["trials"]] == [int(line["trial"]) for line in lines]
    for row, line, trial in zip(content["trials"], lines, outcome["trials"], strict=True):
        assert row["values"] == trial["values"]
        assert row["status"] == line["status"] == trial["status"]
        assert row["value"] == (None if trial["value"] is None else pytest.approx(trial["value"]))
        assert line[RATE] == str(trial["values"][RATE])
    best, worst = lines[0], lines[-1]
    assert float(best["accuracy of seed 1"]) - float(best["accuracy of seed 0"]) == pytest.approx(0.01)
    assert float(best["seconds"]) == pytest.approx(2 * 9)  # two seeds, 90 steps of 0.1 seconds each
    assert worst["status"] == "failed"
    assert HOSTILE in worst["line"]


@pytest.mark.parametrize(
    ("name", "sweep", "at_most", "says", "parts"),
    [
        ("one trial", Sweep({RATE: choice([0.01])}), None, "finished", {"Learning"}),
        ("nothing but seeds", Sweep({}, seeds=3), None, "the config as it is", {"Learning", "Seeds"}),
        ("all fail", Sweep({RATE: choice([0.5, 0.9])}), None, "no trial was trained to its end", set()),
        ("nothing yet", Sweep({RATE: choice([0.01, 0.02])}), 0, "under way", set()),
        (
            "half",
            Sweep({RATE: log(1e-4, 1.0)}, trials=9, halving=Halving(3, 2)),
            7,
            "so far",
            {"Learning", "Parameters"},
        ),
    ],
)
def test_any_sweep_has_a_page(name, sweep, at_most, says, parts, tmp_path):
    seeds = tuple(range(sweep.seeds))
    study = made_sweep(tmp_path / "sweep", sweep, accuracy, at_most, seeds)
    _, page, data = written(study)
    assert says in page.text
    shown = {part for part in ("Learning", "Parameters", "Seeds") if f"{part} " in " ".join(page.words)}
    assert shown == parts
    assert len(data["trials"]) == len(study.values)


def test_a_metric_that_is_infinite_is_no_value(tmp_path):
    """A perplexity that overflowed: the sweep has a page, and the trial no place."""
    space = Sweep({RATE: choice([0.2, 0.1])})
    study = made_sweep(tmp_path / "a", space, lambda values, *_: math.inf if values[RATE] > 0.1 else 0.5)
    assert study.outcome()["best"] == 1
    _, _, data = written(study)
    assert {trial["trial"]: trial["value"] for trial in data["trials"]} == {0: None, 1: 0.5}
    alone = made_sweep(tmp_path / "b", Sweep({RATE: choice([0.1])}), lambda *_: math.inf)
    assert alone.outcome()["best"] is None
    written(alone)


def test_several_objectives_have_a_front(tmp_path):
    def grows(values, seed, step):
        return {2: 0.5, 4: 0.8, 6: 0.7, 8: 0.9}[values[DEPTH]] * step / 90

    objectives = {"accuracy": "max", "cost": "min"}
    space = Sweep({DEPTH: choice([2, 4, 6, 8])})
    study = made_sweep(tmp_path / "sweep", space, grows, objectives=objectives)
    _, page, data = written(study)
    assert "Trade-off the line joins the trials that no other one beats in everything: 3, 1, 0" in page.text
    assert data["front"] == [3, 1, 0]
    assert {trial["trial"]: trial["others"] for trial in data["trials"]} == {0: [2], 1: [4], 2: [6], 3: [8]}
    assert json.loads((study.folder / "trials.json").read_text())["objectives"] == objectives


def test_a_sweep_whose_trials_are_decided_as_it_goes_on_is_looked_at_without_a_trace(tmp_path):
    space = Sweep({RATE: log(1e-4, 0.1)}, trials=8, hours=1.0)
    study = made_sweep(tmp_path / "sweep", space, accuracy, at_most=3)
    points = sorted((study.folder / "points").iterdir())
    (points[-1]).unlink()
    _, page, data = written(Study.read(study.folder))
    assert sorted((study.folder / "points").iterdir()) == points[:-1]
    assert "under way" in page.text
    assert "the number of trials depends on timing" in page.text
    assert len(data["trials"]) == len(points) - 1


def test_the_report_verb_sees_which_folder_it_got(made, capsys, tmp_path):
    assert cli.main(["report", str(made.folder)]) == 0
    assert capsys.readouterr().out == f"{made.folder / 'report.html'}\n"
    (tmp_path / "sweep.json").write_text("{}")
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "sweep.json: lacks config" in capsys.readouterr().err


def test_a_file_that_is_not_as_it_was_written_is_named(tmp_path):
    study = made_sweep(tmp_path / "sweep", Sweep({RATE: choice([0.01])}), accuracy)
    (study.folder / "trials" / "0000-seed0" / "attempts.jsonl").write_text('{"event": "train", "step": 1}\n')
    with pytest.raises(UserError, match=r"attempts.jsonl: is not as a run writes it"):
        write_report(study)
    (study.folder / "results" / "0000-seed0-rung0.json").write_text('{"status": "completed"}')
    with pytest.raises(UserError, match="results: is not as a run writes it"):
        write_report(Study.read(study.folder))


def test_a_command_stands_on_lines_that_a_shell_reads_as_one():
    words = [
        "jaxformer",
        "train",
        "--config",
        "a b",
        "--config.data.transforms=[]",
        "--config.model.name='x'",
    ]
    split = subprocess.run(["sh", "-c", f"printf '%s\\n' {in_lines(words)}"], capture_output=True, text=True)
    assert split.stdout.splitlines() == words


# What the parts say


def test_several_spaces_of_a_path_are_one_axis():
    space = {
        NAME: choice(
            {"a": {RATE: log(1e-4, 1e-2)}, "b": {RATE: log(1e-3, 1e-1)}, "c": {RATE: choice(["auto"])}}
        ),
        DEPTH: integer(1, 4),
    }
    name, rate, depth = axes_of(space, [{RATE: 0.003}, {RATE: "auto"}])
    assert (rate.kind, rate.values) == ("choice", ("auto", 0.003))
    assert (depth.kind, depth.values, depth.label) == ("integer", (1, 4), "depth")
    assert name.index("b") == 1
    assert rate.index(None) is None
    del space[NAME].conditions[2][RATE]
    (_, rate, _) = axes_of(space, [{RATE: 0.003}])
    assert (rate.kind, rate.values) == ("log", (1e-4, 1e-1))
    assert rate.feature(1e-3) == pytest.approx(math.log(1e-3))
    assert math.isnan(rate.feature(None))


def test_importances_name_the_parameter_that_decides_and_doubt_noise():
    axes = axes_of({"x": log(1e-4, 1.0), "y": uniform(0, 1), "z": choice(["a", "b"])}, [])
    random = np.random.default_rng(0)
    values = [{"x": 10 ** random.uniform(-4, 0), "y": random.uniform(), "z": "ab"[i % 2]} for i in range(60)]
    by_x = np.argsort(np.argsort([abs(math.log10(each["x"]) + 2) for each in values]))
    found = importances(axes, values, by_x)
    assert next(iter(found.shares)) == "x"
    assert found.shares["x"] > 0.95
    assert found.explained > 0.8
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert importances(axes, values, random.permutation(60)).explained < 0.2
    assert importances(axes, values[:7], range(7)) is None
    assert importances(axes, values, [0] * 60) is None


def test_a_parameter_that_most_trials_lack_has_an_importance():
    axes = axes_of({"x": uniform(0, 1), "y": uniform(0, 1), "never": uniform(0, 1)}, [])
    values = [{"x": i / 20, **({"y": i / 20} if i % 4 == 0 else {})} for i in range(20)]
    assert set(importances(axes, values, range(20)).shares) == {"x", "y", "never"}


def test_the_interval_of_a_mean_is_students():
    values = {0: 0.91, 1: 0.93, 2: 0.90}
    mean, deviation = np.mean(list(values.values())), np.std(list(values.values()), ddof=1)
    row = {"trial": 4, "rung": 0, "seeds": values, "value": mean, "deviation": deviation}
    (found,) = spread([row, row | {"deviation": None}, row | {"rung": 1}])
    expected = ttest_1samp(list(values.values()), 0).confidence_interval(0.95)
    assert found["interval"] == pytest.approx([expected.low, expected.high])


# In a browser

PROBE = """<script>
const faults = [];
addEventListener("error", (event) => faults.push(event.message));
addEventListener("load", () => {
  const table = document.querySelector("table.sortable");
  const order = () => [...table.tBodies[0].rows].map((row) => row.dataset.trial);
  const button = table.tHead.rows[0].cells[2].querySelector("button"), found = {};
  button.click();
  found.up = order();
  button.click();
  found.down = order();
  found.sort = table.tHead.rows[0].cells[2].getAttribute("aria-sort");
  const svg = document.querySelector("[data-chart=learning] svg");
  const dot = svg.querySelector("circle.best").getBoundingClientRect();
  const at = {clientX: dot.left + dot.width / 2, clientY: dot.top + dot.height / 2};
  svg.dispatchEvent(new PointerEvent("pointermove", at));
  found.tip = document.getElementById("tip").textContent;
  Element.prototype.setPointerCapture = () => {};  // there is no real pointer
  const grip = document.querySelector("[data-chart=parallel] .grip"), place = grip.getBoundingClientRect();
  const drag = (kind, share) => grip.dispatchEvent(
    new PointerEvent(kind, {clientX: place.left + 5, clientY: place.top + share * place.height}));
  drag("pointerdown", 0.0);
  drag("pointermove", 0.45);
  drag("pointerup", 0.45);
  found.chosen = [...table.querySelectorAll("tr[data-trial]:not(.out)")].map((row) => row.dataset.trial);
  found.says = document.querySelector(".again").textContent;
  document.querySelector(".again").click();
  found.left = table.querySelectorAll("tr.out").length;
  const drawn = [...document.querySelectorAll("[data-chart] svg[role=img]")];
  found.charts = drawn.map((each) => each.getAttribute("aria-label"));
  found.bad = document.querySelectorAll("[d*=NaN], [cx*=NaN], [cy*=NaN], [x*=NaN], [y*=NaN]").length;
  const texts = [...document.querySelectorAll("[data-chart=parallel] text")];
  found.without = texts.filter((each) => each.textContent === "none").length;
  found.faults = faults;
  document.body.appendChild(document.createElement("output")).textContent = JSON.stringify(found);
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_draws_every_chart_and_sorts_the_table(made, tmp_path):
    html, _, data = written(made)
    page = tmp_path / "page.html"
    page.write_text(html.replace("<head>", f"<head>{PROBE}"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [
        "--window-size=1280,2000",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = json.loads(Page(done.stdout.partition("<output>")[2].partition("</output>")[0]).text)
    assert found["faults"] == []
    assert found["bad"] == 0
    rates = {str(trial): values[RATE] for trial, values in enumerate(made.values)}
    assert [rates[trial] for trial in found["up"]] == sorted(rates.values())
    assert [rates[trial] for trial in found["down"]] == sorted(rates.values(), reverse=True)
    assert found["sort"] == "descending"
    upper = [trial for trial, rate in rates.items() if rate >= 0.1]  # the upper half of the first axis
    assert sorted(found["chosen"]) == sorted(upper)
    assert found["says"] == "6 of 18 trials; show all"
    assert found["left"] == 0
    assert found["without"] == 1  # the axis of a parameter that stands under a condition
    best = data["trials"][0]
    assert found["tip"].startswith(f"trial {best['trial']}, completedaccuracy 0.905 ± ")
    assert len(found["charts"]) == 3 + len(data["axes"])
    assert all("accuracy" in label for label in found["charts"])
