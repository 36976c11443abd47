"""A model of transformers and ours with its tensors: what they compute, and the gradients of it."""

import json
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxformer.config.schema import load, resolve
from jaxformer.models import MODELS
from jaxformer.weights.rows import numbers_in
from jaxformer.weights.transformers_config import family_of, model_of

FIELDS_OF_OUTPUTS = ("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output")


@dataclass(frozen=True)
class Reference:
    """What transformers gives.

    Attributes:
      config: its config.json.
      source: its checkpoint file's tensors.
      outputs: arrays, of every place and of padding, too.
      weights: of each output, 0 on padding; the loss is the sum of the products.
      gradients: the loss's, under the names of the checkpoint file.
    """

    config: dict
    source: dict
    outputs: list
    weights: list
    gradients: dict


def make_reference(model, inputs, valid, folder):
    """Runs `model` forwards and backwards on random parameters.

    Args:
      model: of transformers.
      inputs: its arguments, NumPy arrays.
      valid: bool [B, T], where outputs over tokens mean something.
      folder: an empty one.
    """
    import torch
    from safetensors.numpy import load_file

    generator = torch.Generator().manual_seed(0)
    model = model.eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases, too: no one and no zero hides a mistake
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder / "model")
    outputs = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    found = [outputs[name] for name in FIELDS_OF_OUTPUTS if outputs.get(name) is not None]
    weights = [weights_of(tuple(x.shape), valid) for x in found]
    sum(torch.sum(x * torch.from_numpy(w)) for x, w in zip(found, weights)).backward()
    with torch.no_grad():  # saved in the parameters' place, gradients get the checkpoint file's names
        for parameter in model.parameters():
            gradient = parameter.grad
            parameter.copy_(torch.zeros_like(parameter) if gradient is None else gradient)
    model.save_pretrained(folder / "gradients")
    return Reference(
        json.loads((folder / "model" / "config.json").read_text()),
        load_file(folder / "model" / "model.safetensors"),
        [x.detach().numpy() for x in found],
        weights,
        load_file(folder / "gradients" / "model.safetensors"),
    )


def weights_of(shape, valid):
    """Random weights for an output of `shape`, 0 on padding if it is one over tokens."""
    weights = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    if shape[:2] == valid.shape:
        weights = weights * valid.reshape(*valid.shape, *(1,) * (len(shape) - 2))
    return weights.astype(np.float32)


def build(name, fields):
    """Our model, as a config would build it."""
    errors = []
    model = resolve(load(MODELS[name]), fields, "model", errors)
    assert not errors, errors
    return model


def shapes_of(model, inputs):
    """Our variables, shapes alone."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), **inputs))


def check_same(reference, inputs, **overrides):
    """Our outputs and gradients are the reference's; `overrides` stand in its config.json's place."""
    config = {**reference.config, **overrides}
    model = build(*model_of(config))
    shapes, family = shapes_of(model, inputs), family_of(config)
    params = family.read(reference.source, shapes)["params"]
    check_written(family, {"params": params}, reference.source, shapes)

    def loss(params):
        outputs = arrays(model.apply({"params": params}, **inputs), reference.outputs)
        return sum(jnp.sum(x * w) for x, w in zip(outputs, reference.weights)), outputs

    gradients, outputs = jax.jit(jax.grad(loss, has_aux=True))(params)
    for ours, theirs, weights in zip(outputs, reference.outputs, reference.weights):
        seen = weights != 0
        assert np.abs(theirs[seen]).max() > 0.1
        np.testing.assert_allclose(
            ours[seen], theirs[seen], rtol=1e-4, atol=3e-5 * np.abs(theirs[seen]).max()
        )
    expected = flatten_dict(family.read(reference.gradients, shapes)["params"], sep="/")
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for path, ours in flatten_dict(gradients, sep="/").items():
        theirs = expected[path]
        # Some are 0 but for rounding, such as those of a bias of keys: the softmax does not see it.
        atol = max(1e-4 * np.abs(theirs).max(), 1e-6 * largest)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=atol, err_msg=path)


def check_written(family, variables, source, shapes):
    """What is written is what was read, by name and bit for bit; nothing that was read is missing."""
    prepared = family.prepare(source, {"/".join(key[1:]): x.shape for key, x in flatten_dict(shapes).items()})
    taken = {match.row.theirs for match in family.matched(source, shapes).values()}
    prefix = family.left_out(source)
    names = taken | {re.split(r"[./](?=[^./]*$)", name)[0] for name in taken}
    unused = {
        row.theirs
        for row in family.rows
        if all(numbers_in(row.theirs.removeprefix(prefix), name) is None for name in names)
    }
    written = family.write(variables, unused, prefixed=not prefix)
    assert set(written) == taken
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, prepared[name], err_msg=name)


def arrays(outputs, like):
    """Our outputs as transformers has them: start and end of answers apart, tokens beside what the pooler gives."""
    if len(like) == 2 and outputs.logits.shape[-1] == 2:
        return [outputs.logits[..., 0], outputs.logits[..., 1]]
    return [outputs.logits, outputs.features][: len(like)]


def text(batch, length, vocab_size, lengths, left=()):
    """Token ids from 3 on int64 [B, T] and where they are, bool [B, T]: padding is at the end, or in front."""
    tokens = np.random.default_rng(1).integers(3, vocab_size, size=(batch, length))
    mask = np.arange(length)[None, :] < np.asarray(lengths)[:, None]
    for row in left:
        mask[row] = mask[row, ::-1]
    return tokens, mask


def rows_of_positions(mask):
    """Positions that leave padding out, int64 [B, T]."""
    return np.maximum(np.cumsum(mask, axis=1) - 1, 0)
