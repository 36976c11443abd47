"""Sweeps in their folders: what is refused before anything starts, and what workers write, in any order."""

import json
import threading
from pathlib import Path

import pytest

import jaxformer as jf
from jaxformer.analysis.describe import footprint
from jaxformer.config import files
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.sweeps import workers
from jaxformer.sweeps.halving import Task
from jaxformer.sweeps.kept import Kept
from jaxformer.sweeps.leases import Leases
from jaxformer.sweeps.spaces import Halving, Sweep, choice, log, uniform
from jaxformer.sweeps.study import FOLDERS, Study
from jaxformer.sweeps.view import View, best_lines
from jaxformer.sweeps.workers import results_of, work
from jaxformer.train import train

RATE = "optimizer.learning_rate"
TINY = {
    "model.width": 16,
    "model.depth": 1,
    "model.mlp_dim": 32,
    "data.train_split": "train[:64]",
    "data.batch_size": 16,
    "data.transforms": [],
    "eval.split": "test[:64]",
    "optimizer": {"name": "momentum", "learning_rate": 0.3},
    "schedule": {"name": "constant"},
    "train.total": "4 steps",
    "train.stop_after_skipped": 1,
    "checkpoint.every": None,
}


pytestmark = pytest.mark.usefixtures("digits_without_reports")


@pytest.fixture(scope="module")
def config():
    return files.read("vit_digits", TINY)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# A real one


def test_a_sweep_trains_what_train_does_and_the_best_wins(config, tmp_path):
    space = Sweep({RATE: choice([0.03, 1e38, 1e-6])}, halving=Halving(2, 2), metric="loss")
    outcome = jf.sweep(config, space, tmp_path / "sweep")
    assert [trial["status"] for trial in outcome["trials"]] == ["completed", "paused", "failed"]
    best, paused, failed = outcome["trials"]
    assert failed["trial"] == 1
    assert best["runs"][0]["value"] < paused["value"]  # the loss at the first rung
    assert [(run["rung"], run["step"], run["status"]) for run in best["runs"]] == [
        (0, 2, "paused"),
        (1, 4, "completed"),
    ]
    assert [run["step"] for run in paused["runs"]] == [2]
    assert "gradients were not finite" in failed["runs"][0]["line"]
    assert (outcome["best"], outcome["metric"], outcome["mode"]) == (best["trial"], "loss", "min")

    config_of_best = Study.open(tmp_path / "sweep").config(Task(best["trial"], 0, 0))
    alone = train(Experiment(config_of_best), tmp_path / "alone")
    assert best["runs"][-1]["metrics"] == alone["final"]
    assert best["value"] == alone["final"]["loss"]

    before = contents(tmp_path / "sweep")
    assert jf.sweep(config, space, tmp_path / "sweep") == outcome
    assert contents(tmp_path / "sweep") == before


# What is refused before anything starts

WRONG = {
    "a path": (
        {"optimizer.lerning_rate": choice([1])},
        {},
        "no field 'lerning_rate'; did you mean 'learning_rate'",
    ),
    "a path through a number": ({"seed.x": choice([1])}, {}, "seed is 0, which has no field"),
    "a value": ({RATE: choice([0.1, -1.0])}, {}, "learning_rate=-1.0: expected"),
    "the end of a range": (
        {"model.dropout": uniform(0.0, 1.5)},
        {"trials": 1},
        "model.dropout=1.5: expected",
    ),
    "under a condition": (
        {"optimizer.name": choice({"adamw": {"optimizer.b2": uniform(0.5, 7.0)}, "momentum": {}})},
        {"trials": 2},
        "optimizer.b2=7.0: expected",
    ),
    "a combination": (
        {"data.batch_size": choice([16, 24]), "train.accumulate": choice([8, 16])},
        {},
        "train.accumulate=16 does not divide data.batch_size=24",
    ),
    "what does not fit the data": ({"model.num_classes": choice([10, 3])}, {}, "model.num_classes=3"),
    "a metric": ({RATE: choice([0.1])}, {"metric": "acuracy"}, "metric='acuracy': .*did you mean 'accuracy'"),
    "rungs at one step": (
        {RATE: choice([0.1])},
        {"halving": Halving(10, 3)},
        "halving: of a training of 4 steps the rungs end after steps 1, 1, 4",
    ),
    "too many": ({f"x{i}": choice(list(range(10))) for i in range(6)}, {}, "more than 100,000 combinations"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_said_and_nothing_starts(case, config, tmp_path):
    parameters, others, message = WRONG[case]
    with pytest.raises(UserError, match=message) as error:
        jf.sweep(config, Sweep(parameters, **others), tmp_path / "sweep")
    assert list(tmp_path.iterdir()) == []
    assert "--" not in str(error.value)


def test_all_mistakes_in_values_are_said_at_once(config, tmp_path):
    parameters = {RATE: choice([-1.0, 0.1]), "model.width": choice([-2, 16]), "model.x": choice([1])}
    with pytest.raises(UserError) as error:
        jf.sweep(config, parameters, tmp_path / "sweep")
    assert len(error.value.lines) == 3


@pytest.fixture(scope="module")
def begun(config, tmp_path_factory):
    """A sweep of eight trials with two seeds and halving, in which nothing was trained."""
    space = Sweep({RATE: log(1e-3, 1.0)}, trials=8, seeds=2, halving=Halving(2, 2))
    return Study.begin(tmp_path_factory.mktemp("begun") / "sweep", config, space)


def placed(begun, folder):
    """The same sweep in another folder."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    (folder / "sweep.json").write_text((begun.folder / "sweep.json").read_text())
    return Study.open(folder)


def test_a_folder_that_holds_something_else_is_refused(begun, config, tmp_path):
    other = Sweep({RATE: log(1e-3, 2.0)}, trials=8, seeds=2, halving=Halving(2, 2))
    with pytest.raises(UserError, match=r"holds another sweep: sweep.parameters.*1.0.*2.0"):
        Study.begin(begun.folder, config, other)
    with pytest.raises(UserError, match=r"holds another sweep: sweep.trials: 8 -> 4"):
        Study.begin(
            begun.folder, config, Sweep({RATE: log(1e-3, 1.0)}, trials=4, seeds=2, halving=Halving(2, 2))
        )
    changed = {**config, "model": {**config["model"], "width": 8}}
    with pytest.raises(UserError, match=r"holds another sweep: config.model.width: 16 -> 8"):
        Study.begin(begun.folder, changed, begun.sweep)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files, such as 'notes.txt'"):
        Study.begin(tmp_path, config, begun.sweep)
    with pytest.raises(UserError, match="not a sweep's folder"):
        Study.open(tmp_path)
    with pytest.raises(UserError, match="cannot write there"):
        Study.begin(tmp_path / "notes.txt", config, begun.sweep)


def test_a_worker_with_other_code_or_versions_is_refused_with_the_difference(begun, tmp_path):
    about = json.loads((begun.folder / "sweep.json").read_text())
    about["code"] |= {"hash": "another", "numpy": "1.0"}
    (tmp_path / "sweep.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"code.hash: 'another' -> .*code.numpy: '1.0' -> "):
        Study.open(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(UserError, match=r"sweep.json: cannot be read as JSON"):
        Study.open(tmp_path)


def test_a_result_that_is_cut_is_named(begun, tmp_path):
    study = placed(begun, tmp_path / "sweep")
    study.result_file(Task(0, 0, 0)).write_text('{"status": "comp')
    with pytest.raises(UserError, match=r"0000-seed0-rung0.json: cannot be read as JSON"):
        work(study)


def test_a_folder_in_which_a_leader_was_killed_before_it_wrote_is_taken(config, tmp_path):
    for name in FOLDERS:
        (tmp_path / "sweep" / name).mkdir(parents=True)
    (tmp_path / "sweep" / "leases" / "README").write_text("no lease")
    study = Study.begin(tmp_path / "sweep", config, Sweep({RATE: choice([1e-3])}))
    assert Leases(study.folder / "leases").held(["0000-seed0"]) == []


# Workers, whose trainings are made up


def made_up(study, task, folder, console=None):
    """What a trial of this test gives: some fail, and the loss of none is finite."""
    rate = study.values[task.trial][RATE]
    if task.trial == 3:
        raise ValueError("a mistake of the model's\nin two lines")
    accuracy = round(rate * (task.rung + 1) + task.seed / 100, 6)
    return {"status": "paused", "step": 2 + task.rung, "final": {"accuracy": accuracy, "loss": float("nan")}}


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(workers, "trained", made_up)
    monkeypatch.setattr(workers, "PATIENCE", (0.01, 0.01))


def test_any_number_of_workers_writes_the_same_study(begun, tmp_path, no_training):
    study = placed(begun, tmp_path / "one")
    outcome = work(study)
    assert [t["status"] for t in outcome["trials"]].count("failed") == 1
    assert outcome["trials"][0]["trial"] == outcome["best"]
    assert outcome["trials"][-1]["runs"][0]["line"] == "ValueError: a mistake of the model's"
    assert sum(trial["rung"] == 1 for trial in outcome["trials"]) == 4
    assert len(list((study.folder / "results").iterdir())) == 2 * (8 + 4)
    expected = (study.folder / "study.json").read_bytes()

    folder = tmp_path / "many"
    placed(begun, folder)
    threads = [threading.Thread(target=lambda: work(Study.open(folder))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (folder / "study.json").read_bytes() == expected
    assert len(list((folder / "leases").glob("[!.]*"))) >= 2 * (8 + 4)


def test_what_is_no_fault_of_the_trial_ends_the_worker_and_is_no_result(begun, tmp_path, monkeypatch):
    study, task = placed(begun, tmp_path / "sweep"), Task(0, 0, 0)

    def refuses(cause):
        def raising(*_):
            raise UserError("the disk is full") from cause

        monkeypatch.setattr(workers, "trained", raising)

    refuses(OSError(28, "no space"))
    with pytest.raises(UserError, match="the disk is full"):
        work(study)
    assert list((study.folder / "results").iterdir()) == []
    refuses(BlockingIOError())
    assert results_of(study, [task], Kept()) == [None]  # another process trains in the folder of the run
    refuses(None)
    assert results_of(study, [task], Kept())[0] == {
        "status": "failed",
        "step": None,
        "value": None,
        "line": "the disk is full",
    }


def test_a_larger_budget_goes_on_and_repeats_nothing(begun, config, tmp_path, no_training):
    study = placed(begun, tmp_path / "sweep")
    work(study)
    before = {path: path.stat().st_mtime_ns for path in (study.folder / "results").iterdir()}
    more = Sweep({RATE: log(1e-3, 1.0)}, trials=12, seeds=2, halving=Halving(2, 2))
    grown = Study.begin(study.folder, config, more)
    begun_again = {trial["trial"]: trial["status"] for trial in grown.outcome()["trials"]}
    assert list(begun_again.values()).count("completed") == 4  # what was trained to its end stays so
    assert begun_again[11] == "not finished"
    outcome = work(grown)
    assert len(outcome["trials"]) == 12
    assert before.items() <= {p: p.stat().st_mtime_ns for p in (study.folder / "results").iterdir()}.items()


def test_the_folder_has_to_be_a_path(config):
    with pytest.raises(UserError, match="folder=None: expected the path of a folder"):
        jf.sweep(config, {RATE: choice([0.1])}, None)


def test_a_folder_that_cannot_be_written_is_named(config, tmp_path, monkeypatch):
    folder = tmp_path / "read-only"

    def refuses(path, value):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("jaxformer.sweeps.study.write_json", refuses)
    with pytest.raises(UserError, match=r"read-only: cannot write there .*; choose another folder"):
        Study.begin(folder, config, Sweep({RATE: choice([0.1])}))


def test_two_metrics_are_two_objectives(config, tmp_path, no_training):
    sweep = Sweep({RATE: choice([0.1, 0.2])}, metric=["accuracy", "loss"])
    outcome = work(Study.begin(tmp_path / "a", config, sweep))
    assert outcome["objectives"] == {"accuracy": "max", "loss": "min"}
    assert outcome["trials"][0]["objectives"]["accuracy"] == 0.2
    with pytest.raises(UserError, match=r"sweep.metric: .*'loss'.* -> 'loss'|objectives"):
        Study.begin(tmp_path / "a", config, Sweep({RATE: choice([0.1, 0.2])}, metric="loss"))


def test_differences_say_what_is_not_there(begun, config):
    other = Sweep({"model.dropout": choice([0.1])}, trials=8, seeds=2, halving=Halving(2, 2))
    with pytest.raises(UserError) as error:
        Study.begin(begun.folder, config, other)
    assert "sweep.parameters.model.dropout.choice: not there -> [0.1]" in str(error.value)
    assert "learning_rate.log: [0.001, 1.0] -> not there" in str(error.value)


def test_flops_of_a_budget_are_those_of_the_step(config, tmp_path):
    sweep = Sweep({RATE: log(1e-3, 1.0), "model.width": choice([16, 32])}, flops=1e9)
    study = Study.begin(tmp_path / "a", config, sweep)
    assert study.due()
    for number, record in enumerate(study.records.read()):
        experiment = Experiment(study.config(Task(number, 0, 0)))
        assert record["flops"] == footprint(experiment, compile_step=False).flops * 4  # steps


def test_what_is_shown_of_a_sweep(begun, tmp_path, no_training):
    study = placed(begun, tmp_path / "sweep")
    view = View(study)
    assert view.text().startswith("0 of 8 trials completed; rung 1 of 2 has 8 trials")
    metrics = study.run(Task(2, 1, 0)) / "metrics.jsonl"
    metrics.parent.mkdir()
    metrics.write_text('{"step": 10, "train/loss": 1.0}\n' * 900 + '{"step": 1200, "train/loss": 0.5}\n{"st')
    with view.leases.claimed("0002-seed1"), view.leases.claimed("0003-seed0"):
        assert "running: 0002-seed1 at step 1,200, 0003-seed0" in View(study).text()
    outcome = work(study)
    first, _, head, _, best, *_ = view.text().splitlines()
    assert first == "4 of 8 trials completed; rung 2 of 2 has 4 trials; 3 paused; 1 failed"
    assert head.split() == ["trial", "learning_rate", "accuracy", "status"]
    assert best.split()[0] == str(outcome["best"])
    assert "the mean of 2 seeds: optimizer.learning_rate=" in best_lines(study, outcome)[0]
    assert Path(best_lines(study, outcome)[1].split()[1]).name == f"{outcome['best']:04}-seed0"
