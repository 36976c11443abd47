"""The teacher of a distillation: another run's model, applied to the examples that the student sees."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from jaxformer.errors import ConfigError, UserError, counted
from jaxformer.experiment import Experiment

logger = logging.getLogger("jaxformer")
Tree = Any


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher that is ready to be applied."""

    step: int
    """The step of its checkpoint."""
    variables: Tree
    """The variables of its model, on every device."""
    model: Any
    """The linen module, in its own run's precision."""
    task: Any
    """Its run's task, which turns batches into the model's arguments."""

    def __call__(self, variables: Tree, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The logits of a batch's examples, float32 [B, K], as `teacher_logits`."""
        outputs = self.model.apply(variables, **self.task.inputs(batch), deterministic=True)
        return {"teacher_logits": outputs.logits}


def load_teacher(experiment: Experiment) -> LoadedTeacher | None:
    """The teacher that an experiment's task names; None if it names none.

    Raises:
      UserError: the folder is not a run's, or has no such checkpoint.
      ConfigError: the teacher takes other examples than the student, or tells other classes apart.
    """
    wanted = experiment.task.distillation
    if wanted is None:
        return None
    from jaxformer.inference.loaded import LoadedRun  # only a training with a teacher needs it

    where = f"task.distillation.run={wanted.run!r}"
    try:
        loaded = LoadedRun(wanted.run, wanted.checkpoint)
        theirs = loaded.experiment.train_data
    except UserError as error:
        raise UserError(f"{where}: the teacher cannot be read", *error.lines) from error
    ours = experiment.train_data
    for name, (shape, dtype) in theirs.element_spec.items():
        own, own_dtype = ours.element_spec.get(name, ("none", None))
        if name != "labels" and (own, own_dtype) != (shape, dtype):
            raise ConfigError(f"{where}: the teacher takes {name} of shape {shape}, the student's is {own}")
    names = theirs.class_names, ours.class_names
    if None not in names and names[0] != names[1]:
        raise ConfigError(f"{where}: the teacher's classes are {names[0]}, the student's {names[1]}")
    teachers, students = (part.bare_model.num_classes for part in (loaded.experiment, experiment))
    if teachers != students:
        theirs_are = counted(teachers, "class", "classes")
        raise ConfigError(f"{where}: the teacher has {theirs_are}, the student {students}")
    if len({each.tokenizer and each.tokenizer.digest for each in (theirs, ours)}) > 1:
        raise UserError(
            f"{where}: the teacher's tokens mean other texts than the student's",
            f"""train the student with data.tokenizer=dict(name="file", path="{loaded.run.tokenizer_file}")""",
        )
    logger.info("teacher: %s at step %d", wanted.run, loaded.step)
    variables = jax.device_put(loaded.variables, experiment.layout.replicated)
    return LoadedTeacher(loaded.step, variables, loaded.model, loaded.task)
