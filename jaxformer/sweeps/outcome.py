"""What came of a sweep: every trial with its values and results, as study.json holds it."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxformer.sweeps.front import pareto_front
from jaxformer.sweeps.halving import Results, Rules, Task, is_number, ranked


def outcome_of(
    rules: Rules, values: Sequence[Mapping[str, Any]], objectives: Mapping[str, str], results: Results
) -> dict[str, Any]:
    """All trials, the best first; the number of the best one by the first objective; and the Pareto front.

    Nothing in it tells of machines, times or the order in which trials were trained.

    Args:
      rules: the rules of the sweep.
      values: the values of each trial.
      objectives: metric -> whether more of it is better ("max") or less ("min"); the first one ranks the trials.
      results: what is there.
    """
    trials = [trial_of(rules, number, chosen, objectives, results) for number, chosen in enumerate(values)]
    order: list[int] = []
    for rung in reversed(range(len(rules.shares))):
        order += ranked({t["trial"]: t["value"] for t in trials if t["rung"] == rung}, rules.mode)
    completed = [trial for trial in trials if trial["status"] == "completed"]
    reached = {trial["trial"]: list(trial["objectives"].values()) for trial in completed}
    first = trials[order[0]] if order else None  # a trial without a value comes last
    whole = first is not None and first["status"] == "completed" and is_number(first["value"])
    return {
        "metric": next(iter(objectives)),
        "mode": rules.mode,
        "objectives": dict(objectives),
        "best": order[0] if whole else None,
        "front": pareto_front(reached, list(objectives.values())),
        "trials": [trials[number] for number in order],
    }


def trial_of(
    rules: Rules, number: int, values: Mapping[str, Any], objectives: Mapping[str, str], results: Results
) -> dict[str, Any]:
    """A trial as study.json has it, at the last rung to which all of its seeds were trained."""
    rungs = range(rules.first(number), len(rules.shares))
    finished = [rung for rung in rungs if rules.is_finished(results, number, rung)]
    rung = max(finished, default=rungs[0])
    tasks = [Task(number, seed, each) for seed in rules.seeds for each in rungs]
    found = {
        task: {k: v for k, v in results[task].items() if k != "seconds"} for task in tasks if task in results
    }
    value = rules.value(results, number, rung)
    status = "completed" if rung == rungs[-1] else "paused"
    if value is None:
        failed = any(run["status"] == "failed" for run in found.values())
        status = "failed" if failed else "not finished"
    return {
        "trial": number,
        "status": status,
        "value": value,
        "objectives": {metric: rules.objective(results, number, rung, metric) for metric in objectives},
        "values": values,
        "rung": rung,
        "runs": [{"seed": task.seed, "rung": task.rung, **run} for task, run in found.items()],
    }
