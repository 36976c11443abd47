"""A run's folder around parameters that were not trained in it: imported, or averaged."""

from typing import Any

from jaxformer.checkpoints import Checkpoints
from jaxformer.evaluation.evaluator import Monitor
from jaxformer.experiment import Experiment
from jaxformer.runs import Run
from jaxformer.state import TrainState, to_items


def write_run(run: Run, experiment: Experiment, state: TrainState) -> None:
    """Writes config, facts about the data and the only checkpoint, of step 0, into the folder of a run.

    Args:
      run: holds its lock.
      experiment: its data may be nominal.
      state: what is saved.

    Raises:
      UserError: the folder cannot be written.
    """
    config, train, evaluation = experiment.config, experiment.train_data, experiment.eval_data
    tokenizer: Any = train.tokenizer
    run.enter(config)
    run.keep_data(train, evaluation)
    direction = experiment.task.direction(config.eval.monitor)
    progress = {
        "records": 0,
        "monitor": Monitor(direction, config.eval.min_delta).to_json(),
        "evaluation_due": False,
        "epoch_examples": train.num_examples,
        "tokenizer": tokenizer.digest if tokenizer else None,
        "teacher": None,
    }
    with Checkpoints(run.checkpoints, config.checkpoint, config.eval.monitor, direction) as checkpoints:
        checkpoints.save(0, to_items(state), progress)
