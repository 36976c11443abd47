"""The start of a run: the state to begin from, and what is said about it."""

import logging
from dataclasses import replace
from typing import Any

import jax

from jaxformer.analysis.flops import training_flops
from jaxformer.checkpoints import Checkpoints
from jaxformer.data.nominal import record
from jaxformer.errors import UserError
from jaxformer.evaluation.monitor import Monitor
from jaxformer.experiment import Experiment, spare_classes
from jaxformer.files import write_json
from jaxformer.observe.device import device_line
from jaxformer.observe.summary import parameter_table, start_summary
from jaxformer.parallel.compile import bytes_a_device
from jaxformer.precision import dtypes
from jaxformer.run import Run
from jaxformer.state import TrainState, from_items, to_items
from jaxformer.teacher import LoadedTeacher

logger = logging.getLogger("jaxformer")


def restore_or_start(
    experiment: Experiment, checkpoints: Checkpoints, teacher: LoadedTeacher | None = None
) -> tuple[TrainState, Monitor, bool]:
    """The state of the newest good checkpoint, or a fresh one, with what evaluations had shown until then.

    Returns:
      The state, the monitor, and whether the evaluation of this step is still due.

    Raises:
      UserError: the checkpoint is of a training split of another size, so its steps mean other examples; or the
        teacher's checkpoint is not the one of before.
    """
    config = experiment.config.eval
    monitor = Monitor(config.mode, config.min_delta)
    restored = checkpoints.restore(to_items(experiment.state_shapes))
    if restored is None:
        return experiment.layout.init_sharded(experiment.init_state), monitor, False
    items, progress = restored
    examples = experiment.train_data.num_examples
    if progress["epoch_examples"] != examples:
        raise UserError(
            f"data.train_split: the run was trained on {progress['epoch_examples']} examples, now there are {examples}",
            "prepare the same version of the dataset (data.version), or start a new run with --run",
        )
    taught_by = progress.get("teacher")
    if teacher is not None and taught_by not in (None, teacher.step):
        raise UserError(
            f"task.distillation: the run was begun with the teacher at step {taught_by}, now it is at {teacher.step}",
            f"set task.distillation.checkpoint={str(taught_by)!r}, or start a new run with --run",
        )
    logger.info("going on from step %d", progress["step"])
    return from_items(items), replace(monitor, **progress["monitor"]), progress["evaluation_due"]


def keep_tokenizer(run: Run, tokenizer: Any) -> None:
    """Saves the tokenizer in the run's folder, or compares it with the one that is there.

    Raises:
      UserError: another one is there.
    """
    if tokenizer is None:
        return
    if not (run.tokenizer.exists() and run.holds_something):
        if jax.process_index() == 0:
            tokenizer.save(run.tokenizer)
    elif type(tokenizer).load(run.tokenizer).digest != tokenizer.digest:
        raise UserError(
            f"data.tokenizer: makes other tokens than {run.tokenizer}, with which the run was begun",
            "restore the data or the file that it is made from, or start a new run with --run",
        )


def keep_data(run: Run, experiment: Experiment) -> None:
    """Saves what is known of the dataset, so that the run's model predicts where the dataset is not."""
    if jax.process_index() == 0:
        splits = {"train": experiment.train_data, "evaluation": experiment.eval_data}
        write_json(run.data, {name: record(batches) for name, batches in splits.items()})


def announce(experiment: Experiment, run: Run, start_step: int) -> None:
    """Logs what is about to run: the device line, the parameter table, FLOPs, memory, and what is odd."""
    config, batches = experiment.config, experiment.train_data
    params = experiment.variable_shapes["params"]
    logger.info("%s", parameter_table(params))
    logger.info(
        "%s",
        start_summary(
            run_dir=str(run.folder),
            device=device_line(),
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
