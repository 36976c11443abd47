"""The log of a run's start, and the files at its end: the last evaluation, samples, result and report."""

import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxformer.analysis.flops import training_flops
from jaxformer.config.sections import ExperimentConfig
from jaxformer.data.base import known_sizes
from jaxformer.errors import UserError, counted, printable
from jaxformer.experiment import Experiment
from jaxformer.files import write_json
from jaxformer.observe import device, text
from jaxformer.observe.summary import end_summary, parameter_table
from jaxformer.observe.writers import Curves, read_metrics
from jaxformer.parallel.compile import bytes_a_device
from jaxformer.precision import dtypes
from jaxformer.runs import Run
from jaxformer.state import TrainState, from_items, to_items
from jaxformer.tasks.base import Evaluation, Task

if TYPE_CHECKING:
    from jaxformer.data.batches import Batches
    from jaxformer.train import Loop

logger = logging.getLogger("jaxformer")
SHOWN = 16  # samples, and as many mistakes
FEW_STEPS = 100


class NotFinite(UserError):
    """Too many updates in a row were skipped because they were not finite."""

    code = 1
    checkpoint: Path | None = None
    """The last good checkpoint, RUN/checkpoints/STEP, for `start_from`; None where there is none."""
    step: int = 0
    """The first of the steps whose updates were skipped."""


@contextmanager
def entered(
    run: Run, experiment: Experiment, config: ExperimentConfig
) -> Iterator[tuple[Run, ExperimentConfig]]:
    """Takes a run's folder for a training: its lock, its copy in a bucket, its config, facts about its data.

    Yields:
      The run, which knows the lock that it holds, and the config that it goes on with.
    """
    with ExitStack() as held:
        run = held.enter_context(run.lock())
        if config.checkpoint.bucket is not None:
            from jaxformer.bucket import copied

            held.enter_context(copied(run, config))
        config = run.enter(config)
        if not run.finished():
            run.keep_data(experiment.train_data, experiment.eval_data)
        yield run, config


def announce(experiment: Experiment, run: Run, start_step: int) -> None:
    """Logs a run's devices, parameters, FLOPs and memory before it starts, and warns of what is unusual."""
    config, batches, params = experiment.config, experiment.train_data, experiment.parameter_shapes
    steps, epochs = experiment.total_steps, experiment.total_steps / batches.steps_per_epoch
    flops = training_flops(experiment.forward_flops)
    a_step, an_example = (text.engineering(flops * n, "FLOP") for n in (batches.batch_size, 1))
    going_on = f"; going on from step {start_step:,}" if start_step else ""
    known = {
        "run": str(run.folder),
        "device": device.device_line(),
        "model": f"{type(config.model).__name__}, {count_of(params):,} parameters",
        "data": f"{config.data.name}: {batches.num_examples:,} examples to train on, "
        f"{experiment.eval_data.num_examples:,} to evaluate on",
        "steps": f"{steps:,} ({counted(epochs, 'epoch')}), batches of {batches.batch_size:,}{going_on}",
        "precision": dtypes(config.precision).compute,
        "compute": f"{a_step} a step, {an_example} an example (forward + backward)",
        "memory": f"{text.data_size(bytes_a_device(experiment.state_shapes))} of train state a device",
    }
    logger.info("%s", parameter_table(params))
    logger.info("%s", text.notes(known))
    if experiment.average is not None:
        logger.info("evaluations, samples and predictions are those of the parameters' average")
    for fact in dict.fromkeys((*batches.facts, *experiment.eval_data.facts)):
        logger.info("%s", printable(fact, keep=""))
    remarks = (spare_classes(experiment.bare_model, batches), unusual_lengths(experiment), repeated(config))
    for remark in chain(*remarks):
        logger.warning("%s", printable(remark, keep=""))


def spare_classes(model: Any, batches: "Batches") -> Iterator[str]:
    """Yields a line if the model has more classes than the dataset: legal, and seldom meant."""
    classes, given = known_sizes(batches).get("num_classes"), model.num_classes
    if classes is not None and given is not None and given > classes:
        there = f"the dataset has {counted(classes, 'class', 'classes')}"
        yield f"model.num_classes={given}: {there}; the model's others have no example"


def unusual_lengths(experiment: Experiment) -> Iterator[str]:
    """Yields a line if batches are larger than the dataset, and if there are few updates: legal, and seldom meant."""
    batches, steps = experiment.train_data, experiment.total_steps
    if batches.batch_size > batches.num_examples:
        there = f"there are {batches.num_examples} examples to train on"
        yield f"data.batch_size={batches.batch_size}: {there}, and each batch repeats some; use fewer"
    if steps < FEW_STEPS:
        total = experiment.config.train.total
        few = f"train.total='{total}': only {counted(steps, 'update')}"
        yield f"{few}; a longer training or a smaller data.batch_size has more"


def repeated(config: ExperimentConfig) -> Iterator[str]:
    """Yields a line if evaluation sees examples of training, and if training holds some twice."""
    from jaxformer.data.records import shared_examples

    data, split = config.data, config.data.train_split
    with suppress(UserError):  # examples that a user's own class reads from somewhere else
        if both := shared_examples(data, split, config.eval.split):
            seen = f"{counted(both, 'example')} of it {'is' if both == 1 else 'are'} in data.train_split={split!r}, too"
            yield f"eval.split={config.eval.split!r}: {seen}; what was trained on says little of new examples"
        if again := shared_examples(data, split):
            yield f"data.train_split={split!r}: holds {counted(again, 'example')} more than once"


def signs_of_failure(task: Task, evaluation: Evaluation, curves: Curves) -> Iterator[str]:
    """Yields a line for every sign that a training has taught nothing.

    Args:
      task: what was to be learnt.
      evaluation: the last one.
      curves: the metrics by name, see `read_metrics`.
    """
    for name, alike in evaluation.baseline.items():
        value = evaluation.ranked[name]
        if not (value > alike if task.direction(name) == "max" else value < alike):
            found, of_one = (text.number(x) for x in (evaluation.metrics[name], alike))
            yield f"{name} {found} is no better than that of one answer for all, {of_one}"
    losses = curves.get("train/loss", ((), np.zeros(0)))[1]
    losses = losses[np.isfinite(losses)]
    quarter = len(losses) // 4
    if quarter and not losses[-quarter:].mean() < losses[:quarter].mean():
        ends = (text.number(part.mean()) for part in (losses[:quarter], losses[-quarter:]))
        yield "the loss of training has not gone down: {} at first, {} in the end".format(*ends)


def count_of(params: Any) -> int:
    """How many numbers a tree of arrays holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def finish(loop: "Loop", state: TrainState) -> dict[str, Any]:
    """Evaluates the last state, and writes evaluation.json, samples/, report.html and, at last, result.json.

    Args:
      loop: the loop that has ended.
      state: the last train state; with `eval.restore_best` the best checkpoint takes its place.

    Returns:
      The result, as in result.json.
    """
    from jaxformer.observe.goodput import goodput_of

    experiment, run, checkpoints, clock = loop.experiment, loop.run_folder, loop.checkpoints, loop.clock
    step, evaluation = loop.step, loop.evaluation
    if experiment.config.eval.restore_best and loop.monitor.best_step not in (None, step):
        with clock.phase("checkpoint"):
            best = checkpoints.restore_best(to_items(experiment.state_shapes))
        if best is not None:
            state, evaluation, step = from_items(best.items), None, best.progress["step"]
            logger.info("ending with the best checkpoint, of step %d", step)
    with clock.phase("evaluate"):
        evaluation = evaluation or experiment.evaluate(state, clock.renew)
        if jax.process_index() == 0:
            run.check_place()
            write_json(
                run.evaluation_file, {"step": step, "metrics": evaluation.metrics, **evaluation.tables}
            )
    with clock.phase("report"):
        write_shown(experiment, run, state, evaluation)
    with clock.phase("checkpoint"):
        checkpoints.wait()
    note(loop)
    status = "completed" if loop.step == experiment.total_steps else "stopped early"
    remarks = list(signs_of_failure(experiment.task, evaluation, read_metrics(run.folder)))
    overall = goodput_of(run)
    result = {**result_of(loop, status, evaluation.metrics), "remarks": remarks}
    result["goodput"] = overall and overall.to_json()
    if jax.process_index() == 0:
        report = write_report(run, result)
        write_result(run, result)  # it says that the run is over, so it comes last
        logger.info("%s", end_summary(result, overall.lines() if overall else None, str(report)))
    return result


def not_finite(loop: "Loop", step: int) -> NotFinite:
    """The error when no update has been finite for too long; the last save is waited for.

    From the state of the last update that was applied nothing follows but this; the good ones came before it.
    """
    loop.checkpoints.wait()
    applied = step - loop.skipped
    good = max((saved for saved in loop.checkpoints.good_steps() if saved < applied), default=None)
    error = NotFinite(*not_finite_lines(step, loop.skipped, good))
    error.step = applied + 1
    error.checkpoint = loop.run_folder.checkpoints / str(good) if good else None
    return error


def not_finite_lines(step: int, skipped: int, good: int | None) -> tuple[str, str]:
    """What is wrong when no update has been finite for too long, and the remedy.

    Args:
      step: the last step.
      skipped: how many of the latest updates were skipped, this one included.
      good: the step of the last good checkpoint; None if there is none.
    """
    applied = step - skipped
    updates = "update was" if skipped == 1 else f"{skipped} updates were"
    before = f"the last that was applied is of step {applied}" if applied else "none was applied before"
    kept = f"the last good checkpoint is of step {good}" if good else "there is no good checkpoint yet"
    remedy = (
        "lower optimizer.learning_rate, set optimizer.clip_norm, or use precision='float32', in a new folder"
    )
    return (
        f"step {step}: the last {updates} skipped, their gradients were not finite ({before}); {kept}",
        remedy + ("; `start_from` goes on from that checkpoint there" if good else ""),
    )


def finish_paused(loop: "Loop", state: TrainState) -> dict[str, Any]:
    """Waits until a run that pauses is saved, and writes a result.json with the metrics of its last state.

    If no evaluation was due there, this one is for the result alone: the run goes on as if it had never been.
    """
    with loop.clock.phase("evaluate"):
        evaluation = loop.evaluation or loop.experiment.evaluate(state, loop.clock.renew)
    loop.checkpoints.wait()
    note(loop)
    result = result_of(loop, "paused", evaluation.metrics)
    write_result(loop.run_folder, result)
    logger.info("paused after step %d; training in the same folder goes on from there", loop.step)
    return result


def finish_preempted(loop: "Loop", came: signal.Signals) -> None:
    """Waits until a run that a signal ends is saved, and writes a result.json that says so."""
    loop.checkpoints.wait()
    note(loop)
    write_result(loop.run_folder, result_of(loop, "preempted", {}))
    by = "Ctrl-C" if came == signal.SIGINT else came.name
    logger.info("%s: saved at step %d; training in the same folder goes on from there", by, loop.step)


def note(loop: "Loop") -> None:
    """Notes in attempts.jsonl what a training has done and where its time went, on the process that writes."""
    from jaxformer.launching.attempts import append

    if loop.run_folder.held is not None:
        clock = loop.clock
        done = {"step": loop.step, "seconds": clock.summary()}
        done |= {"devices": jax.device_count(), "processes": jax.process_count()}
        append(loop.run_folder.attempts_file, "train", began=clock.began, first=loop.first, **done)


def write_result(run: Run, result: dict[str, Any]) -> None:
    """Writes result.json."""
    if jax.process_index() == 0:
        write_json(run.result_file, result)


def result_of(loop: "Loop", status: str, final: dict[str, float]) -> dict[str, Any]:
    """The content of result.json.

    Examples a second are those of the train steps alone: evaluation, checkpoints and the first step, which
    compiles, are left out. FLOPs are those of training: three times the forward pass's; MFU is their rate, over what
    the devices could do.
    """
    experiment, clock, monitor = loop.experiment, loop.clock, loop.monitor
    seconds, steps = clock.summary(), clock.counts["train"]
    examples = steps * experiment.train_data.batch_size
    per_second = examples / clock.seconds["train"] if steps else None
    flops = training_flops(experiment.forward_flops)
    peak = device.find_peak(dtypes(experiment.config.precision).compute)
    return {
        "status": status,
        "step": loop.step,
        "final": final,
        "same_loss": experiment.task.same_loss,
        "best": {"step": monitor.best_step, experiment.config.eval.monitor: monitor.best}
        if monitor.best is not None
        else None,
        "seconds": seconds,
        "examples_per_second": per_second,
        "parameters": count_of(experiment.state_shapes.params),
        "flops_per_example": flops,
        "mfu": device.mfu(flops, per_second, jax.device_count(), peak.flops) if per_second else None,
        "peak": peak.source,
        "device": device.device_line(),
    }


def write_shown(experiment: Experiment, run: Run, state: TrainState, evaluation: Evaluation) -> None:
    """Writes samples with predictions and attention, the worst mistakes, and pictures that tables tell of."""
    from jaxformer.evaluation import samples  # it draws: a step needs no matplotlib
    from jaxformer.observe.samples import RETRIEVAL, Patches, Shown, write_samples
    from jaxformer.tasks.retrieval import pictures_of

    model, task, batches = experiment.build_model(), experiment.task, experiment.eval_data
    patches = Patches(model.grid, model.tokens_before_grid, "class_token" if model.by_class_token else "mean")
    chosen = samples.choose(
        model,
        task,
        experiment.merged(state.variables()),
        batches,
        experiment.layout,
        SHOWN,
        experiment.compiled,
    )
    for kind, examples in chosen.items():
        if examples and jax.process_index() == 0:
            write_samples(run.folder, examples, kind=kind, patches=patches)
    numbers = pictures_of(evaluation.tables.get(RETRIEVAL, {}))
    if numbers and jax.process_index() == 0:
        found = {index: samples.picture_of(batches, index) for index in numbers}
        shown = [Shown({"index": index, "correct": None}, image) for index, image in found.items()]
        write_samples(run.folder, shown, kind=RETRIEVAL)


def write_report(run: Run, result: dict[str, Any]) -> Path:
    """Writes the run's page; see `observe/report.py`."""
    from jaxformer.observe import report  # it draws

    return report.write_report(run.folder, result)
