"""The log of a run's start, and the files at its end: the last evaluation, samples, result and report."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxformer.analysis.flops import training_flops
from jaxformer.errors import counted
from jaxformer.experiment import Experiment, spare_classes
from jaxformer.files import write_json
from jaxformer.observe import device, text
from jaxformer.observe.summary import end_summary, parameter_table
from jaxformer.parallel.compile import bytes_a_device
from jaxformer.precision import dtypes
from jaxformer.runs import Run
from jaxformer.state import TrainState, from_items, to_items

if TYPE_CHECKING:
    from jaxformer.train import Loop

logger = logging.getLogger("jaxformer")
SHOWN = 16  # samples, and as many mistakes


def announce(experiment: Experiment, run: Run, start_step: int) -> None:
    """Logs a run's devices, parameters, FLOPs and memory before it starts, and warns of what is unusual."""
    config, batches, params = experiment.config, experiment.train_data, experiment.variable_shapes["params"]
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
        logger.info("%s", fact)
    for remark in spare_classes(experiment.bare_model, batches):
        logger.warning("%s", remark)


def count_of(params: Any) -> int:
    """How many numbers a tree of arrays holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def finish(loop: "Loop", state: TrainState) -> dict[str, Any]:
    """Evaluates the last state, and writes evaluation.json, samples/, report.html and, at last, result.json.

    A run that was preempted is only saved, and gets a result.json with this status.

    Args:
      loop: the loop that has ended.
      state: the last train state; with `eval.restore_best` the best checkpoint takes its place.

    Returns:
      The result, as in result.json.
    """
    experiment, run, checkpoints, clock = loop.experiment, loop.run_folder, loop.checkpoints, loop.clock
    if loop.status == "preempted":
        checkpoints.wait()
        logger.info("SIGTERM: saved at step %d; training in the same folder goes on from there", loop.step)
        return write_result(run, result_of(loop, {}))
    step, evaluation = loop.step, loop.evaluation
    if experiment.config.eval.restore_best and loop.monitor.best_step not in (None, step):
        with clock.phase("checkpoint"):
            best = checkpoints.restore_best(to_items(experiment.state_shapes))
        if best is not None:
            state, evaluation, step = from_items(best.items), None, best.progress["step"]
            logger.info("ending with the best checkpoint, of step %d", step)
    with clock.phase("evaluate"):
        evaluation = evaluation or experiment.evaluate(state)
        run.check_place()
        write_json(run.evaluation_file, {"step": step, "metrics": evaluation.metrics, **evaluation.tables})
    with clock.phase("report"):
        write_shown(experiment, run, state)
    with clock.phase("checkpoint"):
        checkpoints.wait()
    result = result_of(loop, evaluation.metrics)
    if jax.process_index() == 0:
        report = write_report(run, result)
        write_result(run, result)  # it says that the run is over, so it comes last
        logger.info("%s", end_summary(result, report=str(report)))
    return result


def write_result(run: Run, result: dict[str, Any]) -> dict[str, Any]:
    """Writes result.json, and returns what is in it."""
    if jax.process_index() == 0:
        write_json(run.result_file, result)
    return result


def result_of(loop: "Loop", final: dict[str, float]) -> dict[str, Any]:
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
        "status": loop.status,
        "step": loop.step,
        "final": final,
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


def write_shown(experiment: Experiment, run: Run, state: TrainState) -> None:
    """Writes samples with predictions and attention, and the worst mistakes."""
    from jaxformer.evaluation import samples  # it draws: a step needs no matplotlib
    from jaxformer.observe.samples import Patches, write_samples

    model, task, batches = experiment.build_model(), experiment.task, experiment.eval_data
    patches = Patches(model.grid, model.tokens_before_grid, "class_token" if model.by_class_token else "mean")
    chosen = samples.choose(model, task, state.variables(), batches, experiment.layout, SHOWN)
    for kind, examples in chosen.items():
        if examples and jax.process_index() == 0:
            write_samples(run.folder, examples, kind=kind, patches=patches)


def write_report(run: Run, result: dict[str, Any]) -> Path:
    """Writes the run's page; see `observe/report.py`."""
    from jaxformer.observe import report  # it draws

    return report.write_report(run.folder, result)
