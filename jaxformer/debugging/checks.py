"""What `train` can look into on a laptop before the long run: each check is a line of the report."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxformer.analysis.describe import assemble
from jaxformer.config.sections import ExperimentConfig
from jaxformer.data.base import NominalBatches
from jaxformer.debugging.finite import first_not_finite
from jaxformer.debugging.gradients import check_gradient
from jaxformer.debugging.interpreter import QUICK
from jaxformer.debugging.labels import EXAMPLES, features_of, labels_shifted, targets_shifted
from jaxformer.debugging.overfit import ENOUGH, Overfit, overfit, standing_still, without_noise
from jaxformer.debugging.tiny import tiny
from jaxformer.errors import counted
from jaxformer.experiment import Experiment
from jaxformer.models.base import replaced

Tree = Any
Batch = Mapping[str, Any]
Verdict: TypeAlias = Literal["ok", "note", "wrong"]
SHOWN = 4  # paths in a line
ROWS = 4  # of the batch that is learnt by heart


@dataclass(frozen=True)
class Finding:
    """A line of the report."""

    verdict: Verdict
    """ "wrong" is a fault, "note" may be meant."""
    text: str
    """What was found."""


def debug(config: ExperimentConfig) -> Iterator[Finding]:
    """Yields what the tiny form of a config shows, on one device.

    Raises:
      UserError: the config does not fit its data, or its dataset is not here and nothing is known of it.
    """
    small = without_noise(tiny(config))
    experiment = assemble(small, jax.devices()[:1])
    experiment.check()
    count = sum(leaf.size for leaf in jax.tree.leaves(experiment.variable_shapes["params"]))
    model = type(small.model).__name__
    yield Finding("note", f"tiny form: {model} of {count:,} parameters, {ROWS} examples of a batch")
    made_up = isinstance(experiment.train_data, NominalBatches)
    if made_up:
        yield Finding("note", f"the dataset {small.data.name} is not here: the batch is made up")
    whole = made_up_batch(experiment) if made_up else experiment.train_data[0]
    some = {name: rows[:ROWS] for name, rows in whole.items()}
    batch = experiment.task.learnable(some, outputs_of(experiment, some))
    learnt = overfit(experiment, batch)
    if learnt.finite:
        yield Finding("ok", "every number is finite, forwards and backwards")
        yield from learning(experiment, batch, learnt)
    else:
        loss, params = loss_of(experiment, batch)
        place = first_not_finite(jax.value_and_grad(loss), params)
        yield Finding("wrong", f"the first number that is not finite comes from {place or 'the optimizer'}")
    if not made_up:
        yield from labels(experiment, whole)


def learning(experiment: Experiment, batch: Batch, learnt: Overfit) -> Iterator[Finding]:
    """Yields what the gradient and one batch learnt by heart show."""
    gradients = check_gradient(*loss_of(in_float32(experiment), batch))
    reached = (
        f"loss {learnt.first:.3g} -> {learnt.least:.3g} in {learnt.steps} steps at a rate of {learnt.rate:g}"
    )
    below = f"{ENOUGH:.0%} of its first loss"
    if learnt.done:
        yield Finding("ok", f"one batch is learnt by heart: {reached}, below {below}")
    else:
        yield Finding("wrong", f"one batch is not learnt by heart: {reached}, not below {below}")
    for why, paths in standing_still(experiment, learnt.moved, set(gradients.zero)).items():
        meant = learnt.done and "no gradient" not in why
        many = counted(len(paths), "parameter stands", "parameters stand")
        yield Finding("note" if meant else "wrong", f"{many} still, {why}: {few(paths)}")
    if gradients.right:
        yield Finding(
            "ok",
            f"gradients are the derivatives in float64 along random directions, to {gradients.error:.1g}",
        )
    elif np.isnan(gradients.error):
        yield Finding(
            "note", "gradients cannot be compared with derivatives in float64, which are not finite"
        )
    else:
        alone = "no function with a derivative of its own is to blame alone"
        why = "as they do without functions with derivatives of their own, so it is float32's rounding"
        why = "; ".join(gradients.wrong[:SHOWN]) or (why if gradients.rounding else alone)
        differ = f"gradients differ from the derivatives in float64 by {gradients.error:.2g}: {why}"
        yield Finding("wrong" if gradients.wrong or not gradients.rounding else "note", differ)


def labels(experiment: Experiment, batch: Batch) -> Iterator[Finding]:
    """Yields what can be seen of labels that do not belong to their inputs."""
    model, spec = experiment.bare_model, experiment.train_data.element_spec
    if model.kind in ("decoder", "encoder-decoder") and "targets" in batch:
        shifted = targets_shifted(batch)
        yield Finding("wrong", shifted) if shifted else Finding("ok", "targets are the next tokens")
    elif spec.get("labels") == ((), np.dtype(np.int32)) and model.num_classes:
        ordered = experiment.batches(experiment.config.data.train_split, train=False)
        count = min(len(ordered), -(-EXAMPLES // ordered.batch_size))
        batches = [ordered[step] for step in range(count)]
        kept = np.concatenate([b["example_mask"] for b in batches])
        features = np.concatenate([features_of(b) for b in batches])[kept]
        follow, said = labels_shifted(features, np.concatenate([b["labels"] for b in batches])[kept])
        yield Finding("note" if follow is None else "ok" if follow else "wrong", said)


def few(paths: list[str]) -> str:
    """Some of the paths."""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more


def loss_of(experiment: Experiment, batch: Batch) -> tuple[Callable[[Tree], jax.Array], Tree]:
    """Parameters -> the loss of a batch, as a train step computes it; and the fresh parameters."""
    task, model, seed = experiment.task, experiment.model, experiment.config.seed
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 0))
    given = jax.tree.map(jnp.asarray, dict(batch))
    others = jax.jit(experiment.init_variables, compiler_options=QUICK)()
    parameters = others.pop("params")

    def loss(params: Tree) -> jax.Array:
        inputs: dict[str, Any] = {**task.inputs(given), "deterministic": False}
        variables = {"params": params, **others}
        outputs, _ = model.apply(variables, rngs={"dropout": keys[1]}, mutable=list(others), **inputs)
        with jax.named_scope("loss"):
            counts = task.counts(given)
            losses = [
                total / jnp.maximum(counts[name], 1) for name, total in task.loss(outputs, given).items()
            ]
            return sum(losses, jnp.float32(0))

    return loss, parameters


def outputs_of(experiment: Experiment, batch: Batch) -> Any:
    """The shapes of what the model gives for a batch in training."""

    def outputs(variables: Tree, batch: Batch) -> Any:
        rngs, others = {"dropout": jax.random.key(0)}, [*variables.keys() - {"params"}]
        inputs: dict[str, Any] = {**experiment.task.inputs(batch), "deterministic": False}
        return experiment.model.apply(variables, rngs=rngs, mutable=others, **inputs)[0]

    return jax.eval_shape(outputs, experiment.variable_shapes, dict(batch))


def in_float32(experiment: Experiment) -> Experiment:
    """An experiment that computes in float32, with its layers unrolled."""
    config = experiment.config
    config = replace(config, precision="float32", model=replaced(config.model, scan=False))
    data: dict[str, Any] = {"train_data": experiment.train_data, "eval_data": experiment.eval_data}
    return Experiment(config, experiment.devices, **data)


def made_up_batch(experiment: Experiment) -> dict[str, np.ndarray]:
    """A batch of random pixels, tokens, boxes and labels, of the shapes that the dataset's would have."""
    draw, batches, model = np.random.default_rng(0), experiment.train_data, experiment.bare_model
    most = {"image": 256, **dict.fromkeys(("labels", "segmentation"), model.num_classes)}
    most |= dict.fromkeys(("tokens", "decoder_tokens", "targets"), vars(model).get("vocab_size"))
    batch = {}
    for name, (shape, dtype) in batches.element_spec.items():
        size = (batches.batch_size, *shape)
        if np.dtype(dtype) == bool:
            batch[name] = np.ones(size, bool)
        elif name in ("extent", "original_size"):  # the whole frame
            batch[name] = np.broadcast_to(np.asarray(batches.element_spec["image"][0][:2], dtype), size)
        elif np.dtype(dtype).kind == "f":
            batch[name] = draw.uniform(0.25, 0.75, size).astype(dtype)
        else:
            batch[name] = draw.integers(0, most.get(name) or 2, size).astype(dtype)
    return batch
