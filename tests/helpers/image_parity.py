"""A model of images of PyTorch's and ours with its tensors: what they compute, and the gradients of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from helpers.parity import build, check_written
from jaxformer.models.presets import preset


def images(size, batch=2):
    """float32 [batch, size, size, 3]."""
    return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)


def channels_first(image):
    import torch

    return torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


def randomised(model):
    """`model` of PyTorch, to evaluate: no zero and no one is left to hide a mistake, in running statistics neither."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.mul_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point():
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def tensors_of(model):
    """Their name -> tensor."""
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def shapes_of(model, size):
    """Our variables, shapes alone."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def check_same(model, family, reference, size, train=False, adapted=dict):
    """Our logits and the gradients of all parameters are the reference's.

    Args:
      model: ours.
      family: how the reference's tensors are read.
      reference: a model of PyTorch, randomised; images go in, logits come out.
      size: of the images.
      train: whether BatchNorm takes the statistics of the batch.
      adapted: what is done to its tensors, and to their gradients, before they are read.
    """
    import torch

    source, shapes, image = adapted(tensors_of(reference)), shapes_of(model, size), images(size)
    reference.train(train).zero_grad()
    expected = reference(channels_first(image))
    weights = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    torch.sum(expected * torch.from_numpy(weights)).backward()
    expected = expected.detach().numpy()
    gradients = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    gradients = adapted(gradients)
    reference.eval()
    variables = family.read(source, shapes)
    check_written(family, variables, source, shapes)

    def loss(params):
        outputs, _ = model.apply({**variables, "params": params}, image, not train, mutable=["batch_stats"])
        return jnp.sum(outputs.logits * weights), outputs.logits

    found, logits = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    wanted = flatten_dict(family.read({**source, **gradients}, shapes)["params"], sep="/")
    largest = max(np.abs(gradient).max() for gradient in wanted.values())
    for path, ours in flatten_dict(found, sep="/").items():
        # Some are 0 but for rounding, such as those of a bias of keys: the softmax does not see it.
        atol = max(1e-4 * np.abs(wanted[path]).max(), 1e-6 * largest)
        np.testing.assert_allclose(ours, wanted[path], rtol=2e-3, atol=atol, err_msg=path)


def count_of(name):
    """Parameters of a preset, at the size of its images, or 224 pixels."""
    fields = preset(name)
    params = shapes_of(build(fields.pop("name"), fields), fields.get("image_size", 224))["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
