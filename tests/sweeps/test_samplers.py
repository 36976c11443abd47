"""What holds for every sampler: points respect spaces and conditions, and are a function of what has to be known."""

import importlib.util
import json
import math
import random
import statistics
import threading
import typing
from dataclasses import replace

import pytest

from jaxformer.errors import UserError
from jaxformer.files import write_json
from jaxformer.sweeps import samplers as module
from jaxformer.sweeps import study as study_module
from jaxformer.sweeps.halving import Rules, Task
from jaxformer.sweeps.samplers import check_packages, generation_size, needed, told_of
from jaxformer.sweeps.spaces import Halving, Sweep, choice, integer, log, sweep_from_json, uniform
from jaxformer.sweeps.study import FOLDERS, POINTS, Study

GRID = {
    "optimizer.name": choice({"adamw": {"optimizer.b2": choice([0.9, 0.99])}, "lion": {}}),
    "model.width": choice([8, 16]),
}
SPACE = {
    "optimizer.name": choice(
        {"adamw": {"b2": uniform(0.9, 0.99), "rate": log(1e-4, 1e-2)}, "lion": {"rate": log(1e-6, 1e-5)}}
    ),
    "width": integer(8, 10),
    "x": uniform(-1.0, 1.0),
    "layers": choice([[8, 16], [16]]),
    "same": choice([7]),
}
SAMPLERS = [
    name for name in typing.get_args(Sweep.__annotations__["sampler"]) for name in typing.get_args(name)
]
TRIALS = {"gp": 13}  # its points take a tenth of a second and more


def sweep_of(sampler, **fields):
    if sampler == "grid":
        return Sweep(GRID, **fields)
    return Sweep(SPACE, sampler, **{"trials": TRIALS.get(sampler, 24), **fields})


def begun(folder, sweep, mode="max", objectives=None):
    """A sweep's folder, in which nothing was done; its config is not asked for."""
    objectives = objectives or {"metric": mode}
    about = {"config": {}, "sweep": sweep.to_json(), "code": study_module.code(sweep.sampler), "seeds": [0]}
    about |= {
        "metric": next(iter(objectives)),
        "mode": mode,
        "objectives": objectives,
        "seeds": [*range(sweep.seeds)],
    }
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps(about))
    return Study.open(folder)


def reached(values, task):
    """A made-up metric, the better the nearer x is to 0.3 and the longer the training; some trials fail."""
    if values.get("width") == 9 and values.get("x", 0) > 0.6:
        return {"status": "failed", "value": None, "line": "too wide"}
    rate = math.log10(values.get("rate", 1e-3))
    value = (
        -((values.get("x", values.get("model.width", 0) / 16) - 0.3) ** 2)
        - abs(rate + 3) / 10
        + task.rung / 100
    )
    value += task.seed / 1000
    return {
        "status": "completed",
        "value": value,
        "metrics": {"metric": value, "cost": values.get("width", 1.0)},
    }


def carry_out(study, order=None, stop_after=None, at_a_time=1):
    """Does what is due, the first of it or in a random order, some of it at a time; returns study.json's content."""
    shuffled = random.Random(order)
    done = 0
    while (due := study.due()) and (stop_after is None or done < stop_after):
        tasks = due[:1] if order is None else shuffled.sample(due, min(len(due), at_a_time))
        for task in tasks:  # what is under way at a time ends in any order
            result = reached(study.values[task.trial], task)
            write_json(study.result_file(task), {**result, "seconds": shuffled.random()})
            done += 1
    return study.finish() if not study.due() else None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_are_in_their_ranges_and_have_what_their_conditions_say(sampler, tmp_path):
    study = begun(tmp_path / "a", sweep_of(sampler))
    outcome = carry_out(study)
    assert (
        len(outcome["trials"]) == len(study.values) == (6 if sampler == "grid" else TRIALS.get(sampler, 24))
    )
    assert outcome["best"] == outcome["front"][0]
    if sampler in ("grid", "sobol", "halton", "random", "tpe", "gp"):
        assert len({json.dumps(values) for values in study.values}) == len(
            study.values
        )  # none is there twice
    for values in study.values if sampler != "grid" else ():
        adamw = values["optimizer.name"] == "adamw"
        assert list(values) == [
            "optimizer.name",
            *(["b2"] if adamw else []),
            "rate",
            "width",
            "x",
            "layers",
            "same",
        ]
        assert 0.9 <= values.get("b2", 0.95) <= 0.99
        assert (1e-4 <= values["rate"] <= 1e-2) if adamw else (1e-6 <= values["rate"] <= 1e-5)
        assert (type(values["width"]), values["width"] in (8, 9, 10)) == (int, True)
        assert -1 <= values["x"] <= 1
        assert float(f"{values['x']:.6g}") == values["x"]
        assert (values["layers"] in ([8, 16], [16]), values["same"]) == (True, 7)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])
def test_the_number_of_workers_and_where_it_stopped_change_nothing(sampler, tmp_path):
    sweep = sweep_of(sampler, seeds=2, halving=Halving(2, 2), **({} if sampler == "grid" else {"trials": 14}))
    carry_out(begun(tmp_path / "one", sweep))
    expected = (tmp_path / "one" / "study.json").read_bytes()
    for order, at_a_time in enumerate((1, 8)):
        study = begun(tmp_path / str(order), sweep)
        while carry_out(study, order, stop_after=7, at_a_time=at_a_time) is None:
            study = Study.open(study.folder)  # as a worker does that begins
        assert (study.folder / "study.json").read_bytes() == expected


def test_workers_that_ask_at_once_get_the_same_points(tmp_path):
    sweep = sweep_of("tpe", at_once=8)
    carry_out(begun(tmp_path / "one", sweep))
    folder = begun(tmp_path / "many", sweep).folder
    threads = [threading.Thread(target=lambda: carry_out(Study.open(folder), 0)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (folder / "study.json").read_bytes() == (tmp_path / "one" / "study.json").read_bytes()


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 48), ("cmaes", 48), ("gp", 20)])
def test_samplers_that_learn_find_more_than_points_that_do_not(sampler, trials, tmp_path):
    space = {"x": uniform(-1.0, 1.0), "rate": log(1e-5, 1e-1)}
    found = {}
    for name in (sampler, "random"):
        sweep = Sweep(space, name, trials=trials, at_once=1, seed=1)
        outcome = carry_out(begun(tmp_path / name, sweep))
        values = {trial["trial"]: trial["value"] for trial in outcome["trials"]}
        found[name] = statistics.median(values[number] for number in range(trials // 2, trials))
    assert found[sampler] > found["random"] / 2  # half as far away, or less


def test_another_seed_gives_other_points_and_other_results_give_other_later_points(tmp_path, monkeypatch):
    points = {seed: begun(tmp_path / str(seed), sweep_of("tpe", seed=seed)) for seed in (0, 1)}
    for study in points.values():
        carry_out(study)
    assert points[0].values[0] != points[1].values[0]
    monkeypatch.setitem(
        globals(),
        "reached",
        lambda values, task: {
            "status": "completed",
            "value": -values["x"],
            "metrics": {"metric": -values["x"]},
        },
    )
    other = begun(tmp_path / "other", sweep_of("tpe"))
    carry_out(other)
    assert other.values[: module.FIRST] == points[0].values[: module.FIRST]
    assert other.values[-1] != points[0].values[-1]


def test_a_sampler_with_several_objectives(tmp_path):
    sweep = sweep_of("tpe", metric=["metric", "cost"])
    outcome = carry_out(begun(tmp_path / "a", sweep, objectives={"metric": "max", "cost": "min"}))
    trials = {trial["trial"]: trial["objectives"] for trial in outcome["trials"]}
    front = [(trials[number]["metric"], trials[number]["cost"]) for number in outcome["front"]]
    assert front == sorted(front, reverse=True)  # along the front both fall
    assert outcome["best"] == outcome["front"][0]


def test_what_has_to_be_known_before_a_point_is_asked():
    sweep = sweep_of("tpe", at_once=3)
    assert [needed(sweep, number) for number in range(5)] == [0, 0, 0, 1, 2]
    assert generation_size(sweep) == 4 + math.floor(3 * math.log(8))
    sweep = Sweep({"x": uniform(0, 1)}, "cmaes", trials=9)
    assert [needed(sweep, number) for number in range(9)] == [0, 0, 0, 0, 4, 4, 4, 4, 8]


def test_trials_that_failed_are_told_as_the_worst():
    found = [[1.0, 5.0], None, [None, 7.0], [math.nan, None], [0.5, 6.0]]
    assert told_of(found, ["max", "min"]) == [[1.0, 5.0], None, [0.5, 7.0], [0.5, 7.0], [0.5, 6.0]]
    assert told_of([[None]], ["max"]) == [[0.0]]


def test_what_is_missing_is_named(monkeypatch):
    find = importlib.util.find_spec
    for package, sampler, remedy in (
        ("optuna", "tpe", "'jaxformer\\[sweeps\\]'"),
        ("torch", "gp", "install torch"),
    ):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, p=package: None if name == p else find(name)
        )
        with pytest.raises(UserError, match=f"sampler='{sampler}': needs {package}.*{remedy}"):
            check_packages(sampler)
    check_packages("sobol")


# Budgets


def test_a_larger_number_of_trials_goes_on_where_it_stopped(tmp_path):
    study = begun(tmp_path / "few", sweep_of("tpe", trials=12))
    carry_out(study)
    about = json.loads((study.folder / "sweep.json").read_text())
    about["sweep"]["trials"] = 16
    (study.folder / "sweep.json").write_text(json.dumps(about))
    more = Study.open(study.folder)
    assert len(carry_out(more)["trials"]) == 16
    at_once = begun(tmp_path / "many", sweep_of("tpe", trials=16))
    carry_out(at_once)
    assert at_once.values == more.values


@pytest.mark.parametrize("sampler", ["sobol", "tpe", "grid"])
def test_a_budget_of_flops_ends_a_sweep_the_same_way_for_any_order(sampler, tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "config_of", lambda config, values: values)
    monkeypatch.setattr(study_module.Costs, "flops", lambda self, values: 10.0 * values.get("width", 10))
    sweep = replace(sweep_of(sampler), trials=None, flops=450.0, sampler=sampler)
    one, two = begun(tmp_path / "one", sweep), begun(tmp_path / "two", sweep)
    assert carry_out(one) == carry_out(two, 3, at_a_time=4)
    spent = [10.0 * values.get("width", 10) for values in one.values]
    assert sum(spent) <= 450.0 < sum(spent) + 100.0
    assert (
        "FLOPs, and flops=450" in json.loads(sorted((one.folder / POINTS).iterdir())[-1].read_text())["end"]
    )
    assert not one.due()


def test_a_budget_of_hours_counts_later_rungs_too_and_a_larger_one_goes_on(tmp_path):
    sweep = Sweep({"x": uniform(0, 1)}, hours=10 / 3600, halving=Halving(2, 2), at_once=1)
    study = begun(tmp_path / "a", sweep)

    def train_all():
        while due := study.due():
            result = {
                **reached(study.values[due[0].trial], due[0]),
                "seconds": 1.0,
            }  # a rung is half a training
            study.result_file(due[0]).write_text(json.dumps(result))

    train_all()
    trials = len(study.values)
    assert trials + trials // 2 <= 10 < trials + 1 + (trials + 1) // 2
    assert len(study.results()) == trials + trials // 2
    study.records.go_on()
    study.about["sweep"]["hours"] = 15 / 3600
    study = Study(study.folder, study.about)
    train_all()
    assert len(study.values) == 10


def test_with_a_budget_of_hours_the_first_trial_says_what_the_others_take(tmp_path):
    study = begun(tmp_path, Sweep({"x": uniform(0, 1)}, hours=2.5, at_once=4))
    (first,) = study.due()
    study.result_file(first).write_text(json.dumps({**reached(study.values[0], first), "seconds": 3600.0}))
    assert [task.trial for task in study.due()] == [1]  # and a third one would be too long


# The rules that do not wait, and brackets


def results_of(rules, order):
    shuffled, results = random.Random(order), {}
    while due := rules.due(results):
        task = shuffled.choice(due)
        results[task] = {"value": float(task.trial * 7 % 11)}
    return results


def test_asha_does_not_wait_and_promotes_at_least_whom_successive_halving_does():
    rules = Rules(9, (0,), "max", Halving(3, 3, "asha"))
    results = {Task(n, 0, 0): {"value": float(n)} for n in range(3)}
    assert rules.due(results)[0] == Task(2, 0, 1)  # before the other six were trained
    assert Rules(9, (0,), "max", Halving(3, 3)).due(results) == [Task(n, 0, 0) for n in range(3, 9)]
    waited = results_of(Rules(9, (0,), "max", Halving(3, 3)), 0)
    for order in range(10):
        assert set(results_of(rules, order)) >= set(waited)


def test_the_median_rule_stops_those_below_the_median_and_none_of_the_first_few():
    rules = Rules(9, (0,), "min", Halving(rungs=2, rule="median"))
    assert rules.shares == [0.5, 1.0]
    results = {Task(n, 0, 0): {"value": float(n)} for n in range(4)}
    assert rules.rungs(results)[1] == [0, 1, 2, 3]
    results |= {Task(n, 0, 0): {"value": float(n)} for n in range(4, 7)}
    assert rules.rungs(results)[1] == [0, 1, 2, 3]
    results |= {Task(n, 0, 0): {"value": 3.0} for n in (7, 8)}
    assert rules.rungs(results)[1] == [0, 1, 2, 3, 7, 8]  # as good as the median
    assert rules.left(results) == 0.5 * 6


def test_brackets_begin_at_later_rungs_as_in_hyperband():
    rules = Rules(17, (0,), "max", Halving(3, 3, brackets=True))
    begins = [rules.first(number) for number in range(17)]
    assert [begins.count(rung) for rung in range(3)] == [
        9,
        5,
        3,
    ]  # n of brackets s=2, 1, 0 with eta=3 and R=9
    assert [Rules(40, (0,), "max", rules.halving).first(n) for n in range(17)] == begins
    results = results_of(rules, 0)
    assert all(results_of(rules, order) == results for order in range(5))
    assert sorted(sum(task.rung == rung for task in results) for rung in range(3)) == [5, 8, 9]
    assert rules.left(results) == 0


def test_what_depends_on_timing_says_so():
    said = {
        "asha": Sweep(SPACE, trials=3, halving=Halving(rule="asha")),
        "hours": Sweep(SPACE, hours=1.0),
    }
    for word, sweep in said.items():
        assert word in sweep.on_timing
        assert "depends on timing" in sweep.on_timing
        assert sweep_from_json(json.loads(json.dumps(sweep.to_json()))) == sweep
    assert all(sweep_of(name, halving=Halving()).on_timing is None for name in SAMPLERS)
