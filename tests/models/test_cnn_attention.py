"""Attention inside CNNs: against timm's layers, where blocks have it, what is sown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.timm_reference import timm
from helpers.tiny import images, random_params

from jaxformer.config.schema import load, resolve, to_dict
from jaxformer.models.base import Layer
from jaxformer.models.cnn_attention import (
    ATTENTIONS,
    BottleneckAttention,
    CoordinateAttention,
    EfficientChannelAttention,
    NonLocal,
    Placement,
    SqueezeExcitation,
    relative_logits,
)
from jaxformer.models.norms import image_norm
from jaxformer.models.resnet import ResNet
from jaxformer.optim.masks import NO_DECAY, path_mask
from jaxformer.paths import leaves_by_path

C = 16


def norm(**kwargs):
    """BatchNorm that evaluates."""
    return image_norm(Layer(), "batch", 1e-5, deterministic=True)(**kwargs)


def feature_map(height=5, width=6, channels=C):
    return np.random.default_rng(0).normal(size=(2, height, width, channels)).astype(np.float32)


def set_norm(theirs):
    """Running statistics at random; those of ours, and its parameters, of timm's BatchNorm2d."""
    theirs.running_mean.normal_()
    theirs.running_var.uniform_(0.5, 2)
    theirs.weight.data.normal_()
    theirs.bias.data.normal_()
    params = {"scale": theirs.weight.detach().numpy(), "bias": theirs.bias.detach().numpy()}
    return params, {"mean": theirs.running_mean.numpy(), "var": theirs.running_var.numpy()}


def evaluated(theirs, x):
    return theirs.eval()(torch_of(x)).detach().permute(0, 2, 3, 1).numpy()


def torch_of(x):
    import torch

    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def test_non_local():
    """Without subsampling it is timm's, with half the channels inside and logits that are not scaled."""
    timm()
    from timm.layers.non_local_attn import NonLocalAttn

    theirs = NonLocalAttn(C, use_scale=False, rd_ratio=1 / 2)
    params, stats = set_norm(theirs.norm)
    attention = {}
    for name, layer in (("query", theirs.t), ("key", theirs.p), ("value", theirs.g)):
        layer.bias.data.normal_()
        kernel = layer.weight.detach().numpy()[:, :, 0, 0].T.reshape(C, 1, C // 2)
        attention[name] = {"kernel": kernel, "bias": layer.bias.detach().numpy().reshape(1, -1)}
    kernel = theirs.z.weight.detach().numpy()[:, :, 0, 0].T.reshape(1, C // 2, C)
    attention["out"] = {"kernel": kernel, "bias": theirs.z.bias.detach().numpy()}
    variables = {"params": {"attention": attention, "norm": params}, "batch_stats": {"norm": stats}}
    x = feature_map()
    found = jax.jit(lambda v, x: NonLocal(subsample=False).apply(v, x, norm))(variables, x)
    np.testing.assert_allclose(found, evaluated(theirs, x), rtol=1e-4, atol=1e-4)


def test_coordinate_attention():
    timm()
    from timm.layers.coord_attn import CoordAttn

    theirs = CoordAttn(C, rd_channels=8, bias=True)
    params, stats = set_norm(theirs.bn1)
    tree = {"norm": params}
    for name, layer in (
        ("conv", theirs.conv1),
        ("conv_rows", theirs.conv_h),
        ("conv_columns", theirs.conv_w),
    ):
        kernel = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
        tree[name] = {"kernel": kernel, "bias": layer.bias.detach().numpy()}
    variables, x = {"params": tree, "batch_stats": {"norm": stats}}, feature_map()
    found = jax.jit(lambda v, x: CoordinateAttention().apply(v, x, norm))(variables, x)
    np.testing.assert_allclose(found, evaluated(theirs, x), rtol=1e-4, atol=1e-5)


def test_relative_logits_go_by_the_distance():
    """Against the sum written out: the query's product with the embeddings of both distances."""
    generator = np.random.default_rng(0)
    height, width, head_dim = 3, 4, 5
    query = generator.normal(size=(1, 2, height * width, head_dim)).astype(np.float32)
    rows, columns = (generator.normal(size=(2 * n - 1, head_dim)).astype(np.float32) for n in (height, width))
    found = np.asarray(jax.jit(relative_logits)(query, rows, columns))
    for t in range(height * width):
        for s in range(height * width):
            down, right = s // width - t // width, s % width - t % width
            embedding = rows[down + height - 1] + columns[right + width - 1]
            np.testing.assert_allclose(found[0, :, t, s], query[0, :, t] @ embedding, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "size"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)])
def test_the_kernel_of_eca_grows_with_the_channels(channels, size):
    """The odd number next to (log2 C + 1) / 2; 128 channels have 5 in the authors' code, as 4 is even."""
    assert EfficientChannelAttention().kernel_size(channels) == size


@pytest.mark.parametrize("name", sorted(ATTENTIONS))
@pytest.mark.parametrize("version", [1, 2])
def test_every_attention_stands_in_a_resnet(name, version):
    """By its name alone, in the second stage, where it has parameters in every block, and in no other."""
    fields = {
        "stage_sizes": (1, 2), "width": 8, "num_classes": 3, "stem": "small", "version": version,
        "attention": [{"module": {"name": name}, "stages": [2]}],
    }  # fmt: skip
    errors = []
    model = resolve(ResNet, fields, "model", errors)
    assert not errors
    assert to_dict(model)["attention"][0]["module"]["name"] == name
    image = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert [m.shape for m in outputs.maps] == [(2, 8, 8, 32), (2, 4, 4, 64)]
    place = {"branch": "gate", "inner": "attention", "block": "non_local"}[load(ATTENTIONS[name]).where]
    params = variables["params"]
    assert [block for block in sorted(params) if place in params[block]] == [
        "stage_2_block_0",
        "stage_2_block_1",
    ]
    assert ("conv_2" in params["stage_2_block_0"]) == (place != "attention")


def test_placements():
    everywhere = Placement(SqueezeExcitation())
    assert all(everywhere.holds(stage, block, 3) for stage in (1, 2) for block in range(3))
    last = Placement(SqueezeExcitation(), stages=(2,), blocks=(-1,))
    assert [last.holds(2, block, 3) for block in range(3)] == [False, False, True]
    assert not last.holds(1, 2, 3)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"attention": [{"module": {"name": "se"}, "stages": [3]}]},
            "attention[0].stages=[3]: there are 2 stages",
        ),
        (
            {"attention": [{"module": {"name": "se"}, "blocks": [1]}]},
            "attention[0].blocks=[1]: there are 1 blocks",
        ),
        ({"attention": [{"module": {"name": "se"}, "blocks": []}]}, "attention[0].blocks=[]: expected"),
        ({"attention": [{"module": {"name": "botnet"}}], "block": "basic"}, 'block="bottleneck"'),
        (
            {"attention": [{"module": {"name": "botnet", "num_heads": 3}}]},
            "num_heads=3 does not divide width=8",
        ),
        ({"attention": [{"module": {"name": "sel"}}]}, "did you mean 'se'"),
        ({"attention": [{"module": {"name": "cbam", "kernel_size": 4}}]}, "kernel_size=4: expected an odd"),
    ],
)
def test_what_cannot_be_is_said(fields, line):
    errors = []
    resolve(ResNet, {"stage_sizes": (1, 1), "width": 8, **fields}, "model", errors)
    assert len(errors) == 1
    assert line in errors[0]


@pytest.mark.parametrize(("module", "shape"), [(BottleneckAttention(), (64, 64)), (NonLocal(), (16, 4))])
def test_weights_are_sown_and_change_nothing(module, shape):
    """[B, H, T, S] of places: before the map is halved, or behind the block, with the maxima of each four as keys."""
    model = ResNet(
        stage_sizes=(1, 1),
        width=8,
        num_classes=3,
        stem="small",
        norm="group",
        attention=(Placement(module, (2,)),),
    )
    params = random_params(model, images())
    outputs = jax.jit(model.apply)({"params": params}, images())
    same, sown = jax.jit(lambda p, x: model.apply({"params": p}, x, mutable=["attention_maps"]))(
        params, images()
    )
    (weights,) = jax.tree.leaves(sown)
    assert weights.shape[2:] == shape
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(same.logits, outputs.logits, rtol=1e-4, atol=1e-4)


def test_tables_of_positions_do_not_decay():
    model = ResNet(
        stage_sizes=(1,), width=8, num_classes=3, stem="small", attention=(Placement(BottleneckAttention()),)
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), images())["params"]
    taken = leaves_by_path(path_mask(NO_DECAY, shapes))
    assert taken["stage_1_block_0/attention/row_position_embedding"]
    assert not taken["stage_1_block_0/attention/query/kernel"]
