"""The best trial against the config: what is trained, and what may be said of it."""

import json
import math
import shutil

import numpy as np
import pytest
from helpers.made_sweep import made_sweep

from jaxformer import cli
from jaxformer.config import files, schema, sections
from jaxformer.errors import UserError
from jaxformer.sweeps import report
from jaxformer.sweeps.checks import config_of
from jaxformer.sweeps.points import points
from jaxformer.sweeps.spaces import Sweep, choice
from jaxformer.sweeps.study import FOLDERS, Study
from jaxformer.sweeps.winner import Verdict, compares, comparison, verdict_lines
from jaxformer.verbs import sweep as sweep_verb

RATE, NAME, B2 = "optimizer.learning_rate", "optimizer.name", "optimizer.b2"


def accuracy(values, seed, step):
    rate = values[RATE]
    if rate > 1:
        raise ValueError("not finite")
    return (0.9 - 0.1 * abs(math.log10(rate) + 2) + 0.001 * seed) * step / 90


def resolved(config):
    return schema.to_dict(sections.resolve(config))


@pytest.fixture
def made(tmp_path):
    """A sweep whose trial 1 is the best, begun by a command."""
    source = {"config": "vit_digits", "overrides": {"train.total": "9 epochs"}}
    space = Sweep({RATE: choice([0.1, 0.01, 0.0001])}, seeds=2)
    config = files.read("vit_digits", {})
    return made_sweep(tmp_path / "sweep", space, accuracy, None, (0, 1), source, config)


@pytest.mark.parametrize(
    "values",
    [
        {RATE: 0.1},
        {NAME: "adamw", B2: 0.95},
        {"model.depth": 4, NAME: "adamw", B2: 0.95},  # the depth is the config's own
        {"data.transforms": []},
        {"data.transforms[0].padding": 3},
        {"optimizer": {"name": "lion", "learning_rate": 1e-4}},
    ],
)
def test_one_trial_is_the_config_and_the_other_has_all_values(made, values):
    study, config = Study.read(made.folder), made.about["config"]
    vars(study)["enumerated"] = [values]
    base, sweep = comparison(study, 0, 3, {"train.total": "2 epochs"})
    assert sweep.seeds == (2, 3, 4)  # the sweep had 0 and 1
    longer = config_of(config, {"train.total": "2 epochs"})
    of_config, of_winner = (resolved(config_of(base, point)) for point in points(sweep))
    assert of_config == resolved(longer)
    assert of_winner == resolved(config_of(longer, values))
    assert of_winner != of_config


def test_a_best_trial_that_is_the_config_is_trained_once(made):
    study = Study.read(made.folder)
    vars(study)["enumerated"] = [{"model.depth": 4}]
    assert points(comparison(study, 0, 2, {})[1]) == [{}]
    with pytest.raises(UserError, match=r"model\.depth: is what the sweep has tried"):
        comparison(study, 0, 2, {"model.depth": 5})


def test_the_interval_is_that_of_a_paired_bootstrap():
    random = np.random.default_rng(0)
    config = random.normal(0.8, 0.1, 400)
    winner = config + random.normal(0.02, 0.05, 400)
    low, high = Verdict(list(config), list(winner), "max").interval()
    gains = winner - config  # paired: what the two have in common does not widen it
    half = 1.96 * gains.std(ddof=1) / 20
    assert (low, high) == pytest.approx((gains.mean() - half, gains.mean() + half), abs=0.05 * half)
    less = Verdict(list(-config), list(-winner), "min")
    assert less.interval() == pytest.approx((low, high))


BEFORE = [0.70, 0.72, 0.71, 0.69, 0.73]


@pytest.mark.parametrize(
    ("config", "winner", "mode", "says"),
    [
        (BEFORE, [v + 0.1 + v / 50 for v in BEFORE], "max", "the best trial beats the config"),
        (BEFORE, [v + 0.1 + v / 50 for v in BEFORE], "min", "the best trial is worse than the config"),
        (BEFORE, [0.72, 0.70, 0.70, 0.70, 0.73], "max", "the best trial does not beat the config"),
        (BEFORE, BEFORE, "max", "the best trial does not beat the config"),
        (BEFORE[:4], [1.0] * 4, "max", "is not to be told from fewer than 5 seeds"),
        ([0.7], [0.8], "max", "is not to be told from fewer than 5 seeds"),
    ],
)
def test_what_is_said_of_two_lists_of_values(config, winner, mode, says):
    lines = Verdict(config, winner, mode).lines("accuracy")
    assert lines[-1].endswith(says)
    assert lines[0].startswith(f"the config: accuracy {np.mean(config):.4f}")
    assert ("±" in lines[0]) == (len(config) > 1)


def test_a_failure_is_the_verdict(tmp_path):
    space = Sweep({RATE: choice([0.01, 10.0])}, seeds=5)
    study = made_sweep(tmp_path / "best", space, accuracy, seeds=(0, 1, 2, 3, 4))
    assert verdict_lines(study) == ["the best trial failed with 5 seeds: ValueError: not finite"]
    half = made_sweep(tmp_path / "half", space, accuracy, at_most=3, seeds=(0, 1, 2, 3, 4))
    assert verdict_lines(half) == []


def test_a_comparison_with_another_trial_is_not_told_of_the_best(made, capsys):
    """Trial 1 was compared, and then trial 3 came and was better."""
    _, sweep = comparison(made, 1, 2, {})
    made_sweep(made.folder / "best", sweep, accuracy, None, sweep.seeds)
    assert compares(Study.read(made.folder / "best"), made, 1)
    assert report.verdict(made, 1) == verdict_lines(Study.read(made.folder / "best"))
    assert report.verdict(made, 2) == []
    about = json.loads((made.folder / "sweep.json").read_text())
    about["sweep"]["parameters"][RATE]["choice"][0] = 0.02
    (made.folder / "sweep.json").write_text(json.dumps(about))
    for seed in (0, 1):
        path = made.folder / "results" / f"0000-seed{seed}-rung0.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "value": 0.99}))
    assert cli.main(["sweep", "best", str(made.folder), "--train"]) == 2
    assert (
        "compares another trial, which was the best one then; give this comparison" in capsys.readouterr().err
    )


# The verb


def test_the_best_trial_is_printed_with_its_command(made, capsys):
    assert cli.main(["sweep", "best", str(made.folder)]) == 0
    best, run, command = capsys.readouterr().out.splitlines()
    assert best == "best: trial 1, accuracy 0.9005, the mean of 2 seeds: optimizer.learning_rate=0.01"
    assert run.split()[1] == str(made.folder / "trials" / "0001-seed0")
    assert command == (
        "train: jaxformer train --config vit_digits '--config.train.total=9 epochs' "
        "--config.optimizer.learning_rate=0.01 --config.seed=0"
    )


def test_the_comparison_is_a_sweep_of_its_own_and_goes_on(made, capsys, monkeypatch):
    begun = []

    def trained(folder, config, sweep, source, workers, console):
        begun.append((workers, source))
        if not folder.exists():
            made_sweep(folder, sweep, accuracy, 3, sweep.seeds, source)
            return Study.read(folder), 75
        for name in FOLDERS:
            shutil.rmtree(folder / name)
        return made_sweep(folder, sweep, accuracy, None, sweep.seeds, source), 0

    monkeypatch.setattr(sweep_verb, "trained", trained)
    words = ["sweep", "best", str(made.folder), "--train", "--seeds", "6", "--workers", "2"]
    assert cli.main(words) == 75  # a signal came
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "better in 6 of 6 seeds, by 0.0301 in the mean" in lines[-3]
    assert lines[-2:] == ["the best trial beats the config", f"report: {made.folder / 'report.html'}"]
    assert begun == [(2, made.about["source"])] * 2
    page = (made.folder / "report.html").read_text()
    assert "the best trial beats the config" in page
    about = json.loads((made.folder / "best" / "sweep.json").read_text())
    assert about["seeds"] == [2, 3, 4, 5, 6, 7]
    assert (made.folder / "best" / "report.html").exists()


@pytest.mark.parametrize("words", [["--seeds", "3"], ["--workdir", "x"], ["--config.train.total='9 epochs'"]])
def test_options_of_the_comparison_need_it(made, words, capsys):
    assert cli.main(["sweep", "best", str(made.folder), *words]) == 2
    assert "is for the comparison; give --train, too" in capsys.readouterr().err


def test_a_sweep_without_a_best_trial_says_so(tmp_path, capsys):
    folder = tmp_path / "sweep"
    made_sweep(folder, Sweep({RATE: choice([10.0, 20.0])}), accuracy)
    assert cli.main(["sweep", "best", str(folder)]) == 2
    assert "no trial was trained to its end; one says: ValueError: not finite" in capsys.readouterr().err
    assert cli.main(["sweep", "best", str(tmp_path)]) == 2
    assert "not a sweep's folder" in capsys.readouterr().err
