"""Our DETR with transformers' weights gives its logits, boxes and gradients; DETR-R50 has as many parameters."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.parity import build
from helpers.timm_reference import timm

from jaxformer.errors import UserError
from jaxformer.models.presets import preset
from jaxformer.weights.transformers_image import DETR

HEIGHT, WIDTH = 40, 56  # of the frame; maps of 5 x 7
EXTENT = np.array([[40, 33], [25, 56]], np.int32)  # what is not padding
SIZES = {"width": 32, "num_heads": 4, "mlp_dim": 48, "num_queries": 7}
FIELDS = {
    "backbone": {"name": "resnet", "stage_sizes": (1, 2), "width": 4, "num_classes": 0},
    "num_classes": 3, "encoder_depth": 1, "decoder_depth": 2, **SIZES,
}  # fmt: skip


def detr(**fields):
    """A small model of transformers."""
    timm()  # transformers' needs torchvision to import, too
    import torch
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=4, hidden_sizes=[16, 32], depths=[1, 2], layer_type="bottleneck", out_features=["stage2"]
    )  # fmt: skip
    torch.manual_seed(0)
    return DetrForObjectDetection(
        DetrConfig(
            backbone_config=backbone, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_queries=7, num_labels=3,
        )
    )  # fmt: skip


def saved(model, folder):
    """Its tensors under the names of its checkpoint file."""
    from safetensors.numpy import load_file

    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def picture():
    """float32 [2, HEIGHT, WIDTH, 3], with zeros on the padding."""
    image = np.random.default_rng(0).normal(size=(2, HEIGHT, WIDTH, 3)).astype(np.float32)
    for one, (height, width) in zip(image, EXTENT):
        one[height:], one[:, width:] = 0, 0
    return image


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Tensors, logits, boxes, what these are weighted by in a loss, and its gradients."""
    import torch

    model, generator = detr().eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.mul_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point():
                size = 0.5 if "_proj" in name or "fc" in name else 2.0 if "query" in name else 0.2
                tensor.add_(size * torch.randn(tensor.shape, generator=generator))
    model.requires_grad_()
    source = saved(model, tmp_path_factory.mktemp("model"))
    image = picture()
    seen = np.zeros((2, HEIGHT, WIDTH), np.int64)
    for one, (height, width) in zip(seen, EXTENT):
        one[:height, :width] = 1
    outputs = model(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()), torch.from_numpy(seen))
    found = [outputs.logits, outputs.pred_boxes]
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=x.shape).astype(np.float32) for x in found]
    sum(torch.sum(x * torch.from_numpy(w)) for x, w in zip(found, weights)).backward()
    with torch.no_grad():  # saved in the parameters' place, gradients get the checkpoint file's names
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    gradients = saved(model, tmp_path_factory.mktemp("gradients"))
    return source, [x.detach().numpy() for x in found], weights, gradients


def shapes_of(model):
    image = jax.ShapeDtypeStruct((1, HEIGHT, WIDTH, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def test_logits_boxes_and_gradients_are_those_of_transformers(reference):
    source, expected, weights, their_gradients = reference
    model = build("detr", FIELDS)
    shapes = shapes_of(model)
    variables = DETR.read(source, shapes)

    def loss(params):
        outputs = model.apply({**variables, "params": params}, picture(), EXTENT)
        found = [outputs.logits[-1], outputs.boxes[-1]]
        return sum(jnp.sum(x * w) for x, w in zip(found, weights)), found

    gradients, found = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for ours, theirs in zip(found, expected):
        assert theirs.std(axis=1).max() > 0.01  # queries differ
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    wanted = flatten_dict(DETR.read(their_gradients, shapes)["params"], sep="/")
    largest = max(np.abs(gradient).max() for gradient in wanted.values())
    for path, ours in flatten_dict(gradients, sep="/").items():
        if path.startswith("backbone/") and "norm" in path:
            continue  # theirs are no parameters
        atol = max(
            1e-3 * np.abs(wanted[path]).max(), 1e-6 * largest
        )  # sharp attention enlarges what rounding does
        np.testing.assert_allclose(ours, wanted[path], rtol=2e-3, atol=atol, err_msg=path)


def test_what_does_not_fit_is_listed(reference):
    source = dict(reference[0])
    del source["model.query_position_embeddings.weight"]
    source["model.decoder.layernorm.bias"] = np.zeros(3, np.float32)
    shapes = shapes_of(build("detr", FIELDS))
    with pytest.raises(UserError) as caught:
        DETR.read(source, shapes)
    said = str(caught.value)
    assert "query_position_embedding: model.query_position_embeddings.weight is missing" in said
    assert "decoder/norm/bias: model.decoder.layernorm.bias has shape (3,)" in said


def timm_name(name):
    """The name of a backbone's tensor as checkpoints with timm's ResNets have it."""
    for theirs, timms in (
        (r"embedder\.embedder\.convolution", "conv1"),
        (r"embedder\.embedder\.normalization", "bn1"),
        (r"encoder\.stages\.(\d)\.layers\.(\d)\.shortcut\.convolution", r"layer<\1>.\2.downsample.0"),
        (r"encoder\.stages\.(\d)\.layers\.(\d)\.shortcut\.normalization", r"layer<\1>.\2.downsample.1"),
        (r"encoder\.stages\.(\d)\.layers\.(\d)\.layer\.(\d)\.convolution", r"layer<\1>.\2.conv<\3>"),
        (r"encoder\.stages\.(\d)\.layers\.(\d)\.layer\.(\d)\.normalization", r"layer<\1>.\2.bn<\3>"),
    ):
        name = re.sub(theirs, timms, name)
    return re.sub(r"<(\d)>", lambda found: str(int(found[1]) + 1), name)


def test_the_backbone_may_be_timms(reference):
    source = reference[0]
    renamed = {timm_name(name): tensor for name, tensor in source.items()}
    assert sum(name not in source for name in renamed) == sum("backbone" in name for name in source)
    shapes = shapes_of(build("detr", FIELDS))
    jax.tree.map(np.testing.assert_array_equal, *(DETR.read(s, shapes) for s in (source, renamed)))


def test_detr_r50_has_the_parameters_of_transformers():
    # DetrForObjectDetection with a ResNet-50 and 91 classes: 41,524,768 (Carion et al. 2020, table 1: 41M), where
    # scales and biases of BatchNorms are no parameters.
    fields = preset("detr-r50")
    assert fields["num_classes"] == 91
    params = flatten_dict(shapes_of(build(fields.pop("name"), fields))["params"], sep="/")
    own = [leaf for path, leaf in params.items() if not (path.startswith("backbone/") and "norm" in path)]
    assert sum(math.prod(leaf.shape) for leaf in own) == 41_524_768
