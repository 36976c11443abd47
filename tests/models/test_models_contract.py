"""What the package asks of every model (`models/base.py`), and what a config says of impossible ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import CLASSES, TINY, VOCAB, inputs_of, tiny_model

from jaxformer.config import schema
from jaxformer.errors import ConfigError
from jaxformer.inference.attention_layers import attention_layers, calls_of
from jaxformer.models import MODELS
from jaxformer.models.attention import ATTENTION_MAPS
from jaxformer.models.base import Model, replaced
from jaxformer.models.conv_stem import ConvStem
from jaxformer.models.mbconv import MBConvSettings
from jaxformer.models.mlp import Experts
from jaxformer.models.resnet import ResNet
from jaxformer.models.rotary import Rotary
from jaxformer.models.token_layout import NOWHERE
from jaxformer.models.vit import ViT
from jaxformer.parallel.rules import axes_of
from jaxformer.paths import leaves_by_path
from jaxformer.precision import in_precision

KINDS = {
    "bert": "encoder",
    "captioner": "captioner",
    "coca": "coca",
    "detr": "detector",
    "gpt": "decoder",
    "segmenter": "segmenter",
    "seq2seq": "encoder-decoder",
    "text_pairs": "text-pairs",
    "two_towers": "two-towers",
}
# The shape of the logits for a batch of two.
LOGITS = {
    "bert": (2, 6, VOCAB),
    "captioner": (2, 6, VOCAB),
    "coca": (2, 6, VOCAB),
    "detr": (2, 2, 6, CLASSES + 1),
    "gpt": (2, 6, VOCAB),
    "segmenter": (2, 8, 8, CLASSES),
    "seq2seq": (2, 5, VOCAB),
}


def shapes_of(model):
    return jax.eval_shape(lambda key: model.init_with_output(key, **inputs_of(model)), jax.random.key(0))


def random_variables(model):
    """Around those that training would have; variances are positive."""
    generator = np.random.default_rng(0)

    def drawn(path, leaf):
        values = 0.3 * generator.normal(size=leaf.shape)
        return (np.abs(values) + 0.1 if "batch_stats" in str(path) else values).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(drawn, shapes_of(model)[1])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_kind_and_sizes(name):
    model = tiny_model(name)
    assert isinstance(model, Model)
    assert model.kind == KINDS.get(name, "image")
    fields = {field.name for field in dataclasses.fields(model)}
    assert set(model.sizes) <= fields
    assert not list(schema.problems(model))


@pytest.mark.parametrize("name", ["bert", "captioner", "coca", "detr", "gpt", "segmenter", "seq2seq"])
def test_a_size_that_nobody_said_is_one_kind_of_error(name):
    model = tiny_model(name)
    for size in model.sizes:
        head = {"head": "token"} if (name, size) == ("bert", "num_classes") else {}
        with pytest.raises(ConfigError, match=rf"model\.{size} is None: .* set it"):
            shapes_of(model.clone(**{size: None}, **head))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_shapes_and_sixteen_bits(name):
    model = in_precision(tiny_model(name), "bfloat16")
    outputs, variables = shapes_of(model)
    if model.kind in ("two-towers", "text-pairs"):
        assert {leaf.dtype for leaf in jax.tree.leaves((outputs, variables))} == {jnp.dtype("float32")}
        width = 8 if model.kind == "two-towers" else 16
        assert (outputs.image.shape, outputs.text.shape) == ((2, width), (2, width))
        assert outputs.scale.shape == outputs.bias.shape == (2,)
        return
    expected = LOGITS.get(name, (2, model.num_classes) if model.num_classes else None)
    assert (None if outputs.logits is None else outputs.logits.shape) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert outputs.logits is None or outputs.logits.dtype == jnp.float32
    hidden = [getattr(outputs, field, None) for field in ("tokens", "features", "maps")]
    found = {leaf.dtype for leaf in jax.tree.leaves(hidden)}
    assert found == ({jnp.dtype("bfloat16")} if found else set())
    assert found or name == "detr"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_parameter_has_a_gradient_and_a_sharding_rule(name):
    model = tiny_model(name)
    variables, inputs = random_variables(model), inputs_of(model)
    others = {key: value for key, value in variables.items() if key != "params"}

    def loss(params):
        outputs = model.apply({"params": params, **others}, **inputs)
        fields = ("logits", "boxes", "features", "tokens", "image", "text", "scale", "bias")
        seen = [getattr(outputs, field, None) for field in fields]
        return sum(jnp.sum(jnp.sin(x.astype(jnp.float32))) for x in seen if x is not None)

    gradients = leaves_by_path(jax.jit(jax.grad(loss))(variables["params"]))
    still = [path for path, leaf in gradients.items() if not np.abs(leaf).max() > 0]
    still = {path for path in still if not path.endswith("key/bias")}  # a softmax does not see these
    assert still == (
        {"decoder/block_0/attention/value/kernel"} if name == "detr" else set()
    )  # queries start as 0
    assert not [path for path, leaf in gradients.items() if axes_of(path, leaf.shape) is None]


@pytest.mark.parametrize("name", sorted(name for name in MODELS if name not in ("gpt", "bert", "seq2seq")))
def test_token_layout_is_that_of_the_traced_attention(name):
    model = replaced(tiny_model(name), scan=False, remat="none")
    variables, inputs = random_variables(model), inputs_of(model, batch=1)
    calls, (_, maps) = calls_of(lambda: model.apply(variables, **inputs, mutable=[ATTENTION_MAPS]))
    shapes = {path: leaf.shape for path, leaf in leaves_by_path(maps.get(ATTENTION_MAPS, {})).items()}
    layers = attention_layers(model, calls, maps.get(ATTENTION_MAPS, {}))
    assert bool(layers) == (
        name
        in (
            "cct",
            "coatnet",
            "coca",
            "cvt",
            "detr",
            "maxvit",
            "mit",
            "swin",
            "two_towers",
            "vit",
        )
    )
    for layer in layers:
        windows, _, asks, sees = shapes[layer.path]
        places = layer.grid[0] * layer.grid[1]
        assert layer.queries.shape == layer.asking.shape == (windows, asks)
        assert layer.places.shape == (windows, sees)
        assert sorted(layer.places[layer.places != NOWHERE]) == list(range(places))  # every place once
        assert layer.asking.sum() > 0


STEM = ConvStem(channels=(6, 8))  # gives 4 x 4 of 16
SWIN = tiny_model("swin").clone(num_classes=0)
HYBRID = {"image_size": 16, "backbone": STEM, "patch_size": 1}
VIT16 = {**TINY["vit"], "image_size": 16, "num_classes": 0}
# name of a model, or another class -> (fields, words of the one line that names them).
IMPOSSIBLE = [
    ("vit", {"patch_size": 3}, ["patch_size=3", "image_size=8"]),
    ("vit", {"num_heads": 3}, ["num_heads=3", "width=8", "as 4"]),
    ("vit", {"num_heads": 0}, ["num_heads=0"]),
    ("vit", {"positions": "sincos2d", "width": 6}, ["width=6", "sincos2d"]),
    ("vit", {"positions": "sincos2d", "width": 4}, ["width=4", "sincos2d"]),
    ("vit", {"depth": 0}, ["depth=0"]),
    ("vit", {"drop_path": 1.0}, ["drop_path=1.0"]),
    ("vit", {"dropout": -0.1}, ["dropout=-0.1"]),
    ("vit", {"registers": -1}, ["registers=-1"]),
    ("vit", {"num_classes": -1}, ["num_classes=-1", "0 for a model without a head"]),
    ("vit", {"distillation_token": True, "pool": "average"}, ["distillation_token", "pool"]),
    ("vit", {"distillation_token": True, "representation": 8}, ["distillation_token", "representation"]),
    ("vit", {"levels": (0,)}, ["levels=[0]", "without a backbone"]),
    ("vit", {**HYBRID, "patch_size": 3}, ["patch_size=3", "4x4", "as 2"]),
    ("vit", {**HYBRID, "levels": (1,)}, ["levels", "1 maps"]),
    ("vit", {**HYBRID, "levels": ()}, ["levels=[]"]),
    ("vit", {**HYBRID, "patch_size": (1, 1)}, ["patch_size=[1, 1]", "1 levels"]),
    ("vit", {**HYBRID, "backbone": STEM.clone(num_classes=7)}, ["backbone.num_classes=7", "set it to 0"]),
    ("vit", {**HYBRID, "backbone": ViT(**VIT16).clone(image_size=32)}, ["backbone.image_size=32", "=16"]),
    (
        "vit",
        {**HYBRID, "backbone": ViT(**VIT16).clone(patch_size=5)},
        ["backbone.patch_size=5 does not divide"],
    ),
    ("vit", {**HYBRID, "image_size": 2, "backbone": SWIN}, ["image_size=2: too small for this"]),
    ("mlp_mixer", {"patch_size": 5}, ["patch_size=5"]),
    ("conv_stem", {"channels": (), "strides": (2,)}, ["channels=[]"]),
    ("conv_stem", {"channels": (4, 0)}, ["channels[1]=0"]),
    ("conv_stem", {"channels": (4, 4, 4), "strides": (2, 2)}, ["strides=[2, 2]"]),
    ("conv_stem", {"strides": (0,)}, ["strides[0]=0"]),
    ("conv_stem", {"num_classes": -1}, ["num_classes=-1"]),
    ("conv_stem", {"norm_epsilon": 0.0}, ["norm_epsilon=0.0"]),
    ("resnet", {"stage_sizes": (2, 0)}, ["stage_sizes[1]=0"]),
    ("resnet", {"width": 0}, ["width=0"]),
    ("coatnet", {"widths": (8,)}, ["widths=[8]: expected one for each of 2 stages"]),
    ("coatnet", {"head_dim": 6}, ["head_dim=6: does not divide 8"]),
    ("coatnet", {"stage_sizes": (0, 1)}, ["stage_sizes[0]=0"]),
    ("coatnet", {"attention_width": "in", "widths": (6, 8)}, ["head_dim=4: does not divide 6"]),
    ("coatnet", {"num_classes": -1}, ["num_classes=-1"]),
    ("coatnet", {"drop_path": 1.0}, ["drop_path=1.0"]),
    ("coatnet", {"norm_epsilon": 0.0}, ["norm_epsilon=0.0"]),
    (MBConvSettings, {"expansion": 0.0}, ["expansion=0.0"]),
    (MBConvSettings, {"activation": "swiglu"}, ['activation="swiglu"', "without a gate"]),
    ("maxvit", {"widths": (8, 16, 16)}, ["widths=[8, 16, 16]: expected one for each of 2 stages"]),
    ("maxvit", {"head_dim": 16}, ["head_dim=16: does not divide the width 8"]),
    ("maxvit", {"window": 0}, ["window=0"]),
    ("maxvit", {"stem_widths": (0, 8)}, ["stem_widths[0]=0"]),
    ("cct", {"kernel_size": 4}, ["kernel_size=4", "odd"]),
    ("cct", {"num_heads": 3}, ["num_heads=3"]),
    ("cct", {"width": 7, "num_heads": 1, "positions": "sinusoidal"}, ["width=7"]),
    ("cct", {"conv_layers": 0}, ["conv_layers=0"]),
    ("cvt", {"num_heads": (1, 3)}, ["num_heads=[1, 3]"]),
    ("cvt", {"widths": (8, 16, 32)}, ["widths=[8, 16, 32]"]),
    ("cvt", {"projection_kernel": 2}, ["projection_kernel=2"]),
    ("cvt", {"embedding_kernels": (7, 2)}, ["embedding_kernels[1]=2", "odd"]),
    ("mit", {"reductions": (1,)}, ["reductions=[1]"]),
    ("mit", {"num_heads": (1, 3)}, ["num_heads=[1, 3]"]),
    ("convnext", {"stage_sizes": (1, 0)}, ["stage_sizes[1]=0"]),
    ("convnext", {"stage_sizes": ()}, ["stage_sizes=[]", "at least one stage"]),
    ("convnext", {"kernel_size": 6}, ["kernel_size=6"]),
    ("convnext", {"num_classes": -1}, ["num_classes=-1"]),
    ("swin", {"num_heads": (1, 3)}, ["num_heads=[1, 3]"]),
    ("swin", {"num_heads": (1,)}, ["num_heads=[1]"]),
    ("swin", {"window": 0}, ["window=0"]),
    ("swin", {"drop_path": 1.0}, ["drop_path=1.0"]),
    ("detr", {"width": 20}, ["width=20: expected a multiple of 8"]),
    ("detr", {"denoising": 1}, ["denoising=1: expected 0, or a number with"]),
    ("detr", {"num_heads": 3}, ["num_heads=3 does not divide width=16"]),
    ("detr", {"levels": ()}, ["levels=[]: expected indices"]),
    ("detr", {"num_queries": 0}, ["num_queries=0: expected 1 or more"]),
    ("detr", {"num_classes": 0}, ["num_classes=0: expected 1 or more"]),
    ("detr", {"encoder_depth": -1}, ["encoder_depth=-1: expected 0 or more"]),
    ("detr", {"label_noise": 2.0}, ["label_noise=2.0: expected 0 to 1"]),
    ("detr", {"backbone": ResNet(stage_sizes=(1,), width=8)}, ["backbone.num_classes=1000", "set it to 0"]),
    ("gpt", {"num_heads": 3}, ["num_heads=3", "width=16", "as 4"]),
    ("gpt", {"num_kv_heads": 3}, ["num_kv_heads=3", "num_heads=2"]),
    ("gpt", {"num_kv_heads": 0}, ["num_kv_heads=0"]),
    ("gpt", {"context_length": 0}, ["context_length=0"]),
    ("gpt", {"depth": 0}, ["depth=0"]),
    ("gpt", {"window": 0}, ["window=0"]),
    ("gpt", {"window": 2, "window_every": 0}, ["window_every=0"]),
    ("gpt", {"dropout": 1.0}, ["dropout=1.0"]),
    ("gpt", {"positions": "rotary", "head_dim": 1}, ["rotary", "of 1 features", "larger"]),
    ("gpt", {"positions": "rotary", "head_dim": 2, "rotary": Rotary(scaling="ntk")}, ["rotary", "2 turn"]),
    ("gpt", {"positions": "sinusoidal", "width": 15, "num_heads": 5}, ["width=15", "sinusoidal"]),
    ("two_towers", {"image": ViT(**VIT16).clone(num_classes=7)}, ["image.num_classes=7", "set it to 0"]),
    ("two_towers", {"text": tiny_model("bert")}, ['text.head="mlm"', 'set it to "none"']),
    ("two_towers", {"text": tiny_model("bert", head="none")}, ['text.pooler="tanh"', 'set it to "none"']),
    ("two_towers", {"text": tiny_model("gpt", tied=False)}, ["text.tied=False", "set it to True"]),
    ("two_towers", {"text": tiny_model("gpt"), "text_pooling": "first"}, ['text_pooling="first"', "decoder"]),
    ("two_towers", {"image_projection": "none", "embedding": 9}, ['image_projection="none"', "embedding=8"]),
    ("two_towers", {"text_projection": "none"}, ['text_projection="none"', "embedding=16"]),
    ("two_towers", {"scale": 0.0}, ["scale=0.0"]),
    ("coca", {"reads": "prefix"}, ['reads="prefix"', 'set it to "cross"']),
    ("seq2seq", {"num_heads": 3}, ["num_heads=3", "width=16"]),
    ("seq2seq", {"encoder_depth": 0}, ["encoder_depth=0"]),
    ("seq2seq", {"mlp_dropout": 1.0}, ["mlp_dropout=1.0"]),
    ("seq2seq", {"width": 15, "num_heads": 5}, ["width=15", "sinusoidal"]),
    ("seq2seq", {"scaled_logits": True, "tied": False}, ["scaled_logits", "tied=True"]),
    ("bert", {"num_heads": 3}, ["num_heads=3", "width=16"]),
    ("bert", {"position_offset": 16}, ["position_offset=16", "max_positions=16"]),
    ("bert", {"position_offset": -1}, ["position_offset=-1"]),
    ("bert", {"token_types": -1}, ["token_types=-1"]),
    ("bert", {"num_classes": 0}, ["num_classes=0"]),
    ("bert", {"attention_dropout": 1.0}, ["attention_dropout=1.0"]),
    (Experts, {"count": 1, "top_k": 1}, ["count=1"]),
    (Experts, {"count": 4, "top_k": 5}, ["top_k=5"]),
    (Experts, {"count": 4, "top_k": 0}, ["top_k=0"]),
    (Experts, {"count": 4, "capacity": 0.0}, ["capacity=0.0"]),
    (Experts, {"count": 4, "balance": -1.0}, ["balance=-1.0"]),
    (Experts, {"count": 4, "z": -1.0}, ["z=-1.0"]),
    (Rotary, {"base": 1.0}, ["base=1.0"]),
    (Rotary, {"share": 0.0}, ["share=0.0"]),
    (Rotary, {"share": 1.5}, ["share=1.5"]),
    (Rotary, {"factor": 0.5}, ["factor=0.5"]),
    (Rotary, {"original_length": 0}, ["original_length=0"]),
    (Rotary, {"fast": 1.0, "slow": 2.0}, ["slow < fast"]),
]


@pytest.mark.parametrize(("what", "fields", "words"), IMPOSSIBLE, ids=lambda value: str(value)[:50])
def test_impossible_fields_are_named(what, fields, words):
    (line,) = schema.problems(tiny_model(what).clone(**fields) if isinstance(what, str) else what(**fields))
    assert all(word in line for word in words), line
