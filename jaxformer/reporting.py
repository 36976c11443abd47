"""What a run says when it starts, and what it leaves when it ends: the last evaluation, samples, result and report."""

import logging
from pathlib import Path
from typing import Any

import jax

from jaxformer.analysis.flops import training_flops
from jaxformer.checkpoints import Checkpoints
from jaxformer.evaluation.evaluator import Monitor, evaluate
from jaxformer.experiment import Experiment, spare_classes
from jaxformer.files import write_json
from jaxformer.observe import device
from jaxformer.observe.clock import Clock
from jaxformer.observe.summary import end_summary, parameter_table, start_summary
from jaxformer.parallel.compile import bytes_a_device
from jaxformer.precision import dtypes
from jaxformer.runs import Run
from jaxformer.state import TrainState, from_items, to_items
from jaxformer.tasks.base import Evaluation

logger = logging.getLogger("jaxformer")
Tree = Any
SHOWN = 16  # samples, and as many mistakes


def announce(experiment: Experiment, run: Run, start_step: int) -> None:
    """Logs what is about to run: the device line, the parameter table, FLOPs, memory, and what is odd."""
    config, batches = experiment.config, experiment.train_data
    params = experiment.variable_shapes["params"]
    logger.info("%s", parameter_table(params))
    logger.info(
        "%s",
        start_summary(
            run_dir=str(run.folder),
            device=device.device_line(),
            model=type(config.model).__name__,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
            data=f"{config.data.name}: {batches.num_examples:,} examples to train on, "
            f"{experiment.eval_data.num_examples:,} to evaluate on",
            batch_size=batches.batch_size,
            start_step=start_step,
            total_steps=experiment.total_steps,
            steps_per_epoch=batches.steps_per_epoch,
            precision=dtypes(config.precision).compute,
            flops_per_example=training_flops(experiment.forward_flops),
            bytes_per_device=bytes_a_device(experiment.state_shapes),
        ),
    )
    if experiment.average is not None:
        logger.info("evaluations, samples and predictions are those of the parameters' average")
    for fact in dict.fromkeys((*batches.facts, *experiment.eval_data.facts)):
        logger.info("%s", fact)
    for remark in spare_classes(experiment.bare_model, batches):
        logger.warning("%s", remark)


def finish(
    experiment: Experiment,
    run: Run,
    checkpoints: Checkpoints,
    clock: Clock,
    status: str,
    state: TrainState,
    monitor: Monitor,
    evaluation: Evaluation | None,
) -> dict[str, Any]:
    """Evaluates what the run ends with, and writes evaluation.json, samples/, result.json and report.html.

    Args:
      status: "completed" or "stopped early".
      state: the last train state; with `eval.restore_best` the best checkpoint takes its place.
      evaluation: of `state`, if there is one already.

    Returns:
      The result, as in result.json.
    """
    step = last = int(state.step)
    if experiment.config.eval.restore_best and monitor.best_step not in (None, step):
        with clock.phase("checkpoint"):
            best = checkpoints.restore_best(to_items(experiment.state_shapes))
        if best is not None:
            state, evaluation, step = from_items(best.items), None, best.progress["step"]
            logger.info("ending with the best checkpoint, of step %d", step)
    variables = state.variables()
    with clock.phase("evaluate"):
        evaluation = evaluation or evaluate(
            experiment.eval_step, variables, experiment.task, experiment.eval_data, experiment.layout
        )
        write_json(run.evaluation_file, {"step": step, "metrics": evaluation.metrics, **evaluation.tables})
    with clock.phase("report"):
        write_shown(experiment, run, variables)
    with clock.phase("checkpoint"):
        checkpoints.wait()
    result = write_result(experiment, run, clock, status, last, monitor, evaluation)
    if jax.process_index() == 0:
        report = write_report(run)
        logger.info("%s", end_summary(result, report=str(report)))
    return result


def write_result(
    experiment: Experiment,
    run: Run,
    clock: Clock,
    status: str,
    step: int,
    monitor: Monitor,
    evaluation: Evaluation | None = None,
) -> dict[str, Any]:
    """Writes result.json.

    Examples a second are those of the train steps alone: evaluation, checkpoints and the first step, which
    compiles, are left out. FLOPs are those of training: three times the forward pass's; MFU is their rate, over what
    the devices could do.
    """
    name, batches = experiment.config.eval.monitor, experiment.train_data
    seconds = clock.summary()
    steps = clock.count("train")
    per_second = steps * batches.batch_size / clock.seconds_of("train") if steps else None
    best = None if monitor.best is None else {"step": monitor.best_step, name: monitor.best}
    flops = training_flops(experiment.forward_flops)
    peak = device.find_peak(dtypes(experiment.config.precision).compute)
    mfu = None if per_second is None else device.mfu(flops, per_second, jax.device_count(), peak.flops)
    result = {
        "status": status,
        "step": step,
        "final": {} if evaluation is None else evaluation.metrics,
        "best": best,
        "seconds": seconds,
        "examples_per_second": per_second,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(experiment.state_shapes.params)),
        "flops_per_example": flops,
        "mfu": mfu,
        "peak": peak.source,
        "device": device.device_line(),
    }
    if jax.process_index() == 0:
        write_json(run.result_file, result)
    return result


def write_shown(experiment: Experiment, run: Run, variables: Tree) -> None:
    """Writes samples with predictions and attention, and the worst mistakes."""
    from jaxformer.evaluation import samples  # it draws: a step needs no matplotlib
    from jaxformer.observe.samples import Patches, write_samples

    model, task, batches = experiment.build_model(), experiment.task, experiment.eval_data
    patches = Patches(model.grid, model.tokens_before_grid, "class_token" if model.by_class_token else "mean")
    chosen = samples.choose(model, task, variables, batches, experiment.layout, SHOWN)
    for kind, examples in chosen.items():
        if examples and jax.process_index() == 0:
            write_samples(run.folder, examples, kind=kind, patches=patches)


def write_report(run: Run) -> Path:
    """Writes the run's page; see `observe/report.py`."""
    from jaxformer.observe import report  # it draws

    return report.write_report(run.folder)
