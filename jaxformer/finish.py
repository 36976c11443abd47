"""The end of a run: the last evaluation, samples, the result and the report."""

import logging
from typing import Any

import jax

from jaxformer.analysis.flops import training_flops
from jaxformer.assembly import Assembly
from jaxformer.checkpoints import Checkpoints
from jaxformer.evaluation import samples
from jaxformer.evaluation.evaluator import evaluate
from jaxformer.evaluation.monitor import Monitor
from jaxformer.files import write_json
from jaxformer.observe import device
from jaxformer.observe.clock import Clock
from jaxformer.observe.report import write_report
from jaxformer.observe.samples import Patches, write_samples
from jaxformer.observe.summary import end_summary
from jaxformer.precision import dtypes
from jaxformer.run import Run
from jaxformer.state import TrainState, from_items, to_items
from jaxformer.tasks.base import Evaluation

logger = logging.getLogger("jaxformer")
Tree = Any
SHOWN = 16  # samples, and as many mistakes


def finish(
    assembly: Assembly,
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
    if assembly.experiment.eval.restore_best and monitor.best_step not in (None, step):
        with clock.phase("checkpoint"):
            best = checkpoints.restore_best(to_items(assembly.state_shapes))
        if best is not None:
            state, evaluation, step = from_items(best.items), None, best.progress["step"]
            logger.info("ending with the best checkpoint, of step %d", step)
    variables = state.variables()
    with clock.phase("evaluate"):
        evaluation = evaluation or evaluate(
            assembly.eval_step(), variables, assembly.task, assembly.eval_batches, assembly.layout
        )
        write_json(run.evaluation, {"step": step, "metrics": evaluation.metrics, **evaluation.tables})
    with clock.phase("report"):
        write_shown(assembly, run, variables)
    with clock.phase("checkpoint"):
        checkpoints.wait()
    result = write_result(assembly, run, clock, status, last, monitor, evaluation)
    if jax.process_index() == 0:
        report = write_report(run.folder)
        logger.info("%s", end_summary(result, report=str(report)))
    return result


def write_result(
    assembly: Assembly,
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
    name, batches = assembly.experiment.eval.monitor, assembly.train_batches
    seconds = clock.summary()
    steps = clock.count("train")
    per_second = steps * batches.batch_size / clock.seconds_of("train") if steps else None
    best = None if monitor.best is None else {"step": monitor.best_step, name: monitor.best}
    flops = training_flops(assembly.forward_flops)
    peak = device.find_peak(dtypes(assembly.experiment.precision).compute)
    mfu = None if per_second is None else device.mfu(flops, per_second, jax.device_count(), peak.flops)
    result = {
        "status": status,
        "step": step,
        "final": {} if evaluation is None else evaluation.metrics,
        "best": best,
        "seconds": seconds,
        "examples_per_second": per_second,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(assembly.state_shapes.params)),
        "flops_per_example": flops,
        "mfu": mfu,
        "peak": peak.source,
        "device": device.device_line(),
    }
    if jax.process_index() == 0:
        write_json(run.result, result)
    return result


def write_shown(assembly: Assembly, run: Run, variables: Tree) -> None:
    """Writes samples with predictions and attention, and the worst mistakes."""
    model, task, batches = assembly.build_model(), assembly.task, assembly.eval_batches
    patches = Patches(model.grid, model.tokens_before_grid, "class_token" if model.by_class_token else "mean")
    chosen = samples.choose(model, task, variables, batches, assembly.layout, SHOWN)
    for kind, examples in chosen.items():
        if examples and jax.process_index() == 0:
            write_samples(run.folder, examples, kind=kind, patches=patches)
