"""Several runs that answer together: a mean of their probabilities, a mean of their logits, or a vote.

    jf.ensemble(["runs/a", "runs/b"]).evaluate("test")

Each run reads examples as it was trained to: models, sizes of images, tokenizers may differ; classes may not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.errors import UserError
from jaxformer.evaluation.averaging import HOWS, combined
from jaxformer.evaluation.evaluator import evaluate
from jaxformer.experiment import Experiment
from jaxformer.inference.inputs import Input
from jaxformer.inference.loaded import LoadedRun
from jaxformer.tasks.base import Batch, Evaluation, Row

Tree = Any


class Ensemble(LoadedRun):
    """Runs that answer together; used as its first run is.

    Args:
      folders: the runs' folders, two or more.
      how: "mean", of the probabilities (the geometric mean is "logits"'s); "logits", of the logits; or "vote", in which
        each run has a vote for its likeliest class, or with a probability a class for each that it finds more likely
        than not. The probabilities of a vote are shares: one further vote is divided as the mean of the probabilities
        is, so that it decides between equals.
      checkpoint: of each run; "best", "latest" or a step.

    Attributes:
      runs: each run alone.

    Raises:
      UserError: a folder is not a run's, the runs' tasks have no classes to average, or their classes differ.
    """

    def __init__(self, folders: Sequence[str | Path], how: str = "mean", checkpoint: str | int = "best"):
        if isinstance(folders, (str, Path)) or len(folders) < 2:
            raise UserError("an ensemble: takes two runs or more; name their folders")
        if how not in HOWS:
            raise UserError(f"how={how!r}: expected {', '.join(HOWS[:-1])} or {HOWS[-1]}")
        super().__init__(folders[0], checkpoint)
        self.how, self.runs = how, (self, *(LoadedRun(folder, checkpoint) for folder in folders[1:]))
        for run in self.runs:
            self._check(run)

    def _check(self, run: LoadedRun) -> None:
        """Raises UserError if a run cannot answer together with the first."""
        folder, task, own = run.run.folder, type(run.task).__name__, type(self.task).__name__
        if not run.task.averaged:
            raise UserError(f"{folder}: its task, {task}, has no probabilities of classes to average")
        if run.task.reads != self.task.reads or run.task.independent_classes != self.task.independent_classes:
            differ = "does not answer as that of"
            raise UserError(f"{folder}: its task, {task}, {differ} {self.run.folder} does, {own}")
        if run.class_names != self.class_names:
            theirs, ours = (", ".join(each.class_names[:5]) or "none" for each in (run, self))
            raise UserError(f"{folder}: its classes are {theirs} ...; those of {self.run.folder} {ours} ...")

    def evaluate(self, split: str | None = None, *, views: str | None = None) -> Evaluation:
        """Evaluates the runs together, on the split of the first run's dataset.

        Args:
          split: a split of the dataset; None: the first run's `eval.split`.
          views: None; an ensemble sees one view.

        Raises:
          UserError: a run has other examples, the dataset or the split is not there, or `views` is given.
        """
        if views is not None:
            raise UserError(f"views={views!r}: an ensemble sees one view of each image; leave it out")
        first = self.opened(split)
        opened = [first, *(self._beside(run, first) for run in self.runs[1:])]
        step = self.layout.eval_step(make_joint_step(opened, self.how))
        batches: Any = JointBatches([each.eval_data for each in opened])
        variables = [run.variables for run in self.runs]
        return evaluate(step, variables, first.task, batches, self.layout)

    def _beside(self, run: LoadedRun, first: Experiment) -> Experiment:
        """A run's experiment with the same examples as the first one's, as that run reads them.

        Raises:
          UserError: it has other examples.
        """
        ours = first.config
        config = run._here(ours.eval.split)
        rows = ours.data.eval_batch_size
        found = Experiment(replace(config, data=replace(config.data, eval_batch_size=rows)))
        names = config.data.name, ours.data.name
        counts = found.eval_data.num_examples, first.eval_data.num_examples
        if names[0] != names[1] or counts[0] != counts[1]:
            theirs, own = (f"{name} ({count} examples)" for name, count in zip(names, counts))
            raise UserError(f"{run.run.folder}: its dataset is {theirs}, that of {self.run.folder} {own}")
        return found

    def answered(self, inputs: Any, top: int) -> Iterator[tuple[Input, Row, dict[str, Any]]]:
        """As `LoadedRun.answered`, of the runs together."""
        if isinstance(inputs, Iterator):  # every run reads it
            inputs = list(inputs)
        own = super().answered(inputs, top)
        sigmoid = self.task.independent_classes
        for (one, row, _), *others in zip(own, *(run.answered(inputs, top) for run in self.runs[1:])):
            rows = np.stack([row["probabilities"], *(other["probabilities"] for _, other, _ in others)])
            shares = as_probabilities(combined(logits_of(rows, sigmoid), self.how, sigmoid), sigmoid)
            found = {**row, "probabilities": np.asarray(shares)}
            yield one, found, self.task.answers(found, one.example, self, top)

    def explain(self, *_: Any, **__: Any) -> NoReturn:
        """Raises UserError: what an ensemble sees is not drawn."""
        one = self.run.folder
        raise UserError(f"explain: looks into one model; name a run of the ensemble alone, such as {one}")


def make_joint_step(members: Sequence[Experiment], how: str) -> Callable[[Sequence[Tree], Batch], Any]:
    """An eval step of several models, as `make_eval_step` gives of one.

    Args:
      members: give the models and what they take of a batch; the first one's task adds up.
      how: as of `Ensemble`.

    Returns:
      (each model's variables, a batch of `JointBatches`) -> (sums, collected).
    """
    task = members[0].task
    models: list[Any] = [member.model for member in members]

    def eval_step(variables: Sequence[Tree], batch: Batch) -> tuple[Tree, dict[str, jax.Array]]:
        parts = parted(batch, len(members))
        outputs: list[Any] = [
            model.apply(own, **member.task.inputs(part), deterministic=True)
            for model, member, own, part in zip(models, members, variables, parts)
        ]
        logits = jnp.stack([output.logits.astype(jnp.float32) for output in outputs])
        answer = outputs[0].replace(logits=combined(logits, how, task.independent_classes))
        return task.eval_sums(answer, batch), {"example_mask": batch["example_mask"]}

    return eval_step


class JointBatches:
    """The batches of several runs, which have the same examples, as one: arrays of run `n` are called "n/name".

    Args:
      each: every run's; the arrays of the first keep their names.
    """

    def __init__(self, each: Sequence[Any]):
        self.each, first = each, each[0]
        self.numbers, self.source = first.numbers, first.source
        self.class_names, self.tokenizer = first.class_names, first.tokenizer

    def __len__(self) -> int:
        return len(self.each[0])

    @contextmanager
    def read(self, *where: int, stop: int | None = None) -> Iterator[Iterator[Batch]]:
        """As of `Batches`."""
        with ExitStack() as stack:
            readers = [stack.enter_context(each.read(*where, stop=stop)) for each in self.each]
            yield (
                dict(parts[0])
                | {f"{n}/{name}": part[name] for n, part in enumerate(parts) if n for name in part}
                for parts in zip(*readers)
            )


def parted(batch: Batch, count: int) -> list[Mapping[str, Any]]:
    """A batch of `JointBatches` as each run's own."""
    return [
        batch
        if n == 0
        else {name.removeprefix(f"{n}/"): batch[name] for name in batch if name.startswith(f"{n}/")}
        for n in range(count)
    ]


def logits_of(probabilities: np.ndarray, sigmoid: bool) -> jax.Array:
    """Logits with these probabilities, float32; a probability of 0 counts as float32's smallest."""
    tiny = np.finfo(np.float32).tiny
    logs = jnp.log(jnp.maximum(jnp.asarray(probabilities), tiny))
    return logs - jnp.log(jnp.maximum(1 - probabilities, tiny)) if sigmoid else logs


def as_probabilities(logits: jax.Array, sigmoid: bool) -> jax.Array:
    """float32 [..., K]."""
    return jax.nn.sigmoid(logits) if sigmoid else jax.nn.softmax(logits)
