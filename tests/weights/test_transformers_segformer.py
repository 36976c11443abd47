"""Our MiT and all-MLP decoder with transformers' weights give the logits and gradients of SegFormer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.image_parity import channels_first, check_same, count_of, randomised, tensors_of
from helpers.parity import build
from helpers.timm_reference import timm

from jaxformer.errors import UserError
from jaxformer.models.segmentation_decoders import AllMLP
from jaxformer.weights.transformers_image import SEGFORMER, SEGFORMER_HEAD

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
    variables = SEGFORMER_HEAD.read(source, shapes)
    model = AllMLP(width=24, dropout=0.0)

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, maps, CLASSES, not train, mutable=["batch_stats"]
        )
        return jnp.sum(logits * weights), logits

    found, logits = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    wanted = flatten_dict(SEGFORMER_HEAD.read({**source, **gradients}, shapes)["params"], sep="/")
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
    ours, theirs = (flatten_dict(SEGFORMER_HEAD.read(tensors, shapes)) for tensors in (source, on_the_hub))
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


def test_what_does_not_fit_is_listed(reference, shapes):
    source = tensors_of(reference)
    del source["classifier.bias"]
    source["linear_fuse.weight"] = source["linear_fuse.weight"][:, :92]
    with pytest.raises(UserError) as caught:
        SEGFORMER_HEAD.read(source, shapes)
    assert "classifier.bias is missing" in str(caught.value)
    assert "linear_fuse.weight has shape (24, 92, 1, 1); this model needs (24, 96, 1, 1)" in str(caught.value)


def test_the_whole_model_is_that_of_transformers_on_an_odd_size():
    """Maps of 19, 10, 5 and 3 places a side, which keys and values see 4, 5, 2 and 3 of."""
    timm()
    import torch
    import transformers
    from transformers.core_model_loading import revert_weight_conversion

    class SegformerForSemanticSegmentation(transformers.SegformerForSemanticSegmentation):
        def forward(self, pixel_values):
            return super().forward(pixel_values).logits.permute(0, 2, 3, 1)

    sizes = {
        "hidden_sizes": WIDTHS,
        "depths": (1, 2, 1, 1),
        "num_attention_heads": (1, 2, 2, 4),
        "drop_path_rate": 0.0,
    }
    config = transformers.SegformerConfig(
        sr_ratios=(4, 2, 2, 1),
        decoder_hidden_size=24,
        num_labels=CLASSES,
        classifier_dropout_prob=0.0,
        **sizes,
    )
    torch.manual_seed(0)
    theirs = randomised(SegformerForSemanticSegmentation(config))

    def named_as_in_files(tensors):
        found = revert_weight_conversion(theirs, {name: torch.from_numpy(x) for name, x in tensors.items()})
        return {name: x.numpy() for name, x in found.items()}

    mit = {
        "stage_sizes": (1, 2, 1, 1),
        "widths": WIDTHS,
        "num_heads": (1, 2, 2, 4),
        "reductions": (4, 2, 2, 1),
    }
    decoder = {"name": "mlp", "width": 24, "dropout": 0.0}
    ours = {"backbone": {"name": "mit", "num_classes": 0, **mit}, "decoder": decoder, "num_classes": CLASSES}
    check_same(build("segmenter", ours), SEGFORMER, theirs, 75, adapted=named_as_in_files)


# Of transformers 5.23's SegformerForImageClassification with these sizes and 1000 classes: sum(p.numel() for p in
# model.parameters()).
COUNTS = {
    "mit-b0": 3_576_392, "mit-b1": 13_664_424, "mit-b2": 24_709_288, "mit-b3": 44_585_128, "mit-b4": 61_355_688,
    "mit-b5": 81_956_008,
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_presets_have_as_many_parameters_as_transformers(name):
    assert count_of(name) == COUNTS[name]
