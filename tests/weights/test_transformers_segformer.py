"""Our all-MLP decoder with transformers' weights gives the logits and gradients of SegFormer's head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.image_parity import channels_first, randomised, tensors_of
from helpers.timm_reference import timm

from jaxformer.errors import UserError
from jaxformer.models.segmentation_decoders import AllMLP
from jaxformer.weights.transformers_image import SEGFORMER

WIDTHS, SIZES, CLASSES = (8, 12, 16, 20), ((12, 9), (6, 5), (3, 3), (2, 1)), 5


@pytest.fixture(scope="module")
def reference():
    timm()  # transformers' needs torchvision to import, too
    import torch
    from transformers import SegformerConfig
    from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

    config = SegformerConfig(hidden_sizes=WIDTHS, decoder_hidden_size=24, num_labels=CLASSES)
    torch.manual_seed(0)
    return randomised(SegformerDecodeHead(config))


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, *size, width)).astype(np.float32) for size, width in zip(SIZES, WIDTHS)]


@pytest.fixture(scope="module")
def shapes(maps):
    model = AllMLP(width=24)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), maps, CLASSES, True))


@pytest.mark.parametrize("train", [False, True], ids=["running statistics", "statistics of the batch"])
def test_logits_and_gradients_are_those_of_transformers(reference, maps, shapes, train):
    import torch

    source = tensors_of(reference)
    reference.eval().zero_grad()
    reference.batch_norm.train(train)  # and no dropout
    expected = reference([channels_first(x) for x in maps]).permute(0, 2, 3, 1)
    weights = np.random.default_rng(1).normal(size=tuple(expected.shape)).astype(np.float32)
    torch.sum(expected * torch.from_numpy(weights)).backward()
    expected = expected.detach().numpy()
    gradients = {name: parameter.grad.numpy() for name, parameter in reference.named_parameters()}
    variables = SEGFORMER.read(source, shapes)
    model = AllMLP(width=24, dropout=0.0)

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, maps, CLASSES, not train, mutable=["batch_stats"]
        )
        return jnp.sum(logits * weights), logits

    found, logits = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    wanted = flatten_dict(SEGFORMER.read({**source, **gradients}, shapes)["params"], sep="/")
    largest = max(np.abs(gradient).max() for gradient in wanted.values())
    for path, ours in flatten_dict(found, sep="/").items():
        # That of a bias before batch statistics is 0 but for rounding.
        atol = max(1e-4 * np.abs(wanted[path]).max(), 1e-5 * largest)
        np.testing.assert_allclose(ours, wanted[path], rtol=2e-3, atol=atol, err_msg=path)


def test_both_names_of_the_projections_are_read(reference, shapes):
    """And the prefix that they have in a whole model's file."""
    source = tensors_of(reference)
    on_the_hub = {
        f"decode_head.{name.replace('linear_projections', 'linear_c')}": tensor
        for name, tensor in source.items()
    }
    ours, theirs = (flatten_dict(SEGFORMER.read(tensors, shapes)) for tensors in (source, on_the_hub))
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


def test_what_does_not_fit_is_listed(reference, shapes):
    source = tensors_of(reference)
    del source["classifier.bias"]
    source["linear_fuse.weight"] = source["linear_fuse.weight"][:, :92]
    with pytest.raises(UserError) as caught:
        SEGFORMER.read(source, shapes)
    assert "classifier.bias is missing" in str(caught.value)
    assert "linear_fuse.weight has shape (24, 92, 1, 1); this model needs (24, 96, 1, 1)" in str(caught.value)
