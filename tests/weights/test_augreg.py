"""Files of google-research/vision_transformer: their names and shapes, and the logits that timm gives with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.timm_reference import timm

from jaxformer.config.schema import load, resolve
from jaxformer.errors import UserError
from jaxformer.models import MODELS
from jaxformer.models.presets import preset
from jaxformer.models.vit import ViT
from jaxformer.paths import leaves_by_path
from jaxformer.weights.augreg import AUGREG
from jaxformer.weights.files import npz
from jaxformer.weights.rows import rows_of

OLD = ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
NEW = ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
TINY = {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 24, "num_classes": 5}
SIZE = 64  # for the hybrids; plain ones have patches of 16


def published(fields, size, names=OLD):
    """The names and shapes of a file, written down from vit_jax: models_vit.py, and models_resnet.py before Linen."""
    width, heads, mlp_dim = fields["width"], fields["num_heads"], fields["mlp_dim"]
    leaves, channels, stride = {}, 3, 1
    if "backbone" in fields:
        leaves["conv_root/kernel"] = (7, 7, 3, 64)
        leaves |= {f"gn_root/{leaf}": (1, 1, 1, 64) for leaf in ("scale", "bias")}
        channels, stride = 64, 4
        for stage, units in enumerate(fields["backbone"]["stage_sizes"], 1):
            inner = 32 * 2**stage
            stride *= 1 if stage == 1 else 2
            for unit in range(1, units + 1):
                unit_name = f"block{stage}/unit{unit}"
                kernels = {"conv1": (1, 1, channels, inner), "conv2": (3, 3, inner, inner)}
                kernels["conv3"] = (1, 1, inner, 4 * inner)
                if unit == 1:
                    kernels["conv_proj"] = (1, 1, channels, 4 * inner)
                for name, shape in kernels.items():
                    leaves[f"{unit_name}/{name}/kernel"] = shape
                    for leaf in ("scale", "bias"):
                        leaves[f"{unit_name}/{name.replace('conv', 'gn')}/{leaf}"] = (1, 1, 1, shape[-1])
                channels = 4 * inner
    patch = fields["patch_size"]
    tokens = (size // stride // patch) ** 2 + 1
    leaves |= {"embedding/kernel": (patch, patch, channels, width), "embedding/bias": (width,)}
    leaves |= {"cls": (1, 1, width), "Transformer/posembed_input/pos_embedding": (1, tokens, width)}
    attention, second_norm, mlp = names
    for i in range(fields["depth"]):
        block = f"Transformer/encoderblock_{i}"
        for norm in ("LayerNorm_0", second_norm):
            leaves |= {f"{block}/{norm}/{leaf}": (width,) for leaf in ("scale", "bias")}
        for name in ("query", "key", "value"):
            leaves[f"{block}/{attention}/{name}/kernel"] = (width, heads, width // heads)
            leaves[f"{block}/{attention}/{name}/bias"] = (heads, width // heads)
        leaves[f"{block}/{attention}/out/kernel"] = (heads, width // heads, width)
        leaves[f"{block}/{attention}/out/bias"] = (width,)
        leaves |= {
            f"{block}/{mlp}/Dense_0/kernel": (width, mlp_dim),
            f"{block}/{mlp}/Dense_0/bias": (mlp_dim,),
        }
        leaves |= {f"{block}/{mlp}/Dense_1/kernel": (mlp_dim, width), f"{block}/{mlp}/Dense_1/bias": (width,)}
    leaves |= {f"Transformer/encoder_norm/{leaf}": (width,) for leaf in ("scale", "bias")}
    classes = fields.get("num_classes", 1000)
    return leaves | {"head/kernel": (width, classes), "head/bias": (classes,)}


def built(fields):
    """The model, as a config would build it."""
    errors = []
    model = resolve(load(MODELS["vit"]), {k: v for k, v in fields.items() if k != "name"}, "model", errors)
    assert not errors, errors
    return model


def shapes_of(model, size):
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def random_arrays(leaves):
    generator = np.random.default_rng(0)
    return {name: generator.normal(0.1, 0.3, size=shape).astype(np.float32) for name, shape in leaves.items()}


def renamed(source, old=OLD, new=NEW):
    """The same arrays under the names of another numbering."""
    for before, after in zip(old, new):
        source = {name.replace(f"/{before}/", f"/{after}/"): array for name, array in source.items()}
    return source


@pytest.mark.parametrize(
    ("name", "count"),
    [("vit-b16", 200), ("r50-vit-b16", 356), ("r-vit-ti16", 203), ("r26-vit-s32", 287), ("r50-vit-l32", 551)],
)
def test_the_table_has_the_published_names_and_shapes(name, count):
    fields = preset(name)
    ours = leaves_by_path(shapes_of(built(fields), 224)["params"])
    for names in (OLD, NEW):  # before Linen, and since
        expected, found = published(fields, 224, names), {}
        for path, leaf in ours.items():
            row = next(row for row in rows_of(AUGREG.rows, path) if row.theirs in expected)
            found[row.theirs] = row.their_shape(leaf.shape, len(expected[row.theirs]))
        assert found == expected
        assert len(found) == count


class Standardised:
    """vit_jax's weight standardisation, done once to the kernels of a model of timm."""

    @staticmethod
    def convolve(conv, x):
        """A StdConv2dSame's convolution alone."""
        from timm.layers import pad_same
        from torch.nn import functional

        padded = pad_same(x, conv.kernel_size, conv.stride, conv.dilation) if conv.same_pad else x
        return functional.conv2d(padded, conv.weight, None, conv.stride, conv.padding)

    @classmethod
    def in_place(cls, model):
        """Changes the backbone of `model`: the kernels, and the epsilon of its norms."""
        from timm.layers import GroupNormAct, StdConv2dSame

        for module in model.patch_embed.backbone.modules():
            if isinstance(module, GroupNormAct):
                module.eps = 1e-6
            if isinstance(module, StdConv2dSame):
                weight = module.weight
                axes = (1, 2, 3)
                weight.sub_(weight.mean(axes, keepdim=True))
                weight.div_(weight.std(axes, keepdim=True, correction=0) + 1e-5)
                module.forward = cls.convolve.__get__(module)


def reference_logits(fields, file, image):
    """timm's, with its own reader of such files, vit_jax's epsilons and its GELU."""
    import torch

    timm()
    from timm.layers import HybridEmbed
    from timm.models import vision_transformer, vision_transformer_hybrid

    size = image.shape[1]
    arguments = {
        "img_size": size, "patch_size": fields["patch_size"], "embed_dim": fields["width"],
        "depth": fields["depth"], "num_heads": fields["num_heads"], "num_classes": fields["num_classes"],
        "mlp_ratio": fields["mlp_dim"] / fields["width"], "act_layer": lambda: torch.nn.GELU("tanh"),
    }  # fmt: skip
    if "backbone" in fields:
        backbone = vision_transformer_hybrid._resnetv2(fields["backbone"]["stage_sizes"])
        arguments["embed_layer"] = lambda **kwargs: HybridEmbed(backbone, **kwargs)
    model = vision_transformer.VisionTransformer(**arguments).eval()
    with torch.no_grad():
        model.load_pretrained(str(file))
        if "backbone" in fields:
            Standardised.in_place(model)
        return model(torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).numpy()


HYBRID = preset("r50-vit-b16")["backbone"]
KINDS = {
    "vit": {**TINY, "patch_size": 16},
    "stem": {**TINY, "patch_size": 8, "backbone": {**HYBRID, "stage_sizes": ()}},
    "resnet": {**TINY, "patch_size": 1, "backbone": {**HYBRID, "stage_sizes": (1, 2)}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_an_independent_implementation(tmp_path, kind):
    fields = {**KINDS[kind], "image_size": SIZE}
    source = random_arrays(published(fields, SIZE))
    np.savez(tmp_path / "model.npz", **source)
    image = np.random.default_rng(1).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    expected = reference_logits(fields, tmp_path / "model.npz", image)
    model = built(fields)
    params = AUGREG.read(npz(tmp_path / "model.npz"), shapes_of(model, SIZE))["params"]
    logits = jax.jit(lambda p, x: model.apply({"params": p}, x).logits)(params, image)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_other_files_of_the_same_model_are_the_same_to_us(kind):
    fields = {**KINDS[kind], "image_size": SIZE}
    source = random_arrays(published(fields, SIZE))
    shapes = shapes_of(built(fields), SIZE)
    expected = AUGREG.read(source, shapes)
    flat = {name: array.reshape(-1) if array.shape[:3] == (1, 1, 1) and "gn" in name else array
            for name, array in source.items()}  # fmt: skip
    states = {f"opt/target/{name}": array for name, array in source.items()} | {
        "opt/state/step": np.zeros(())
    }
    for other in (renamed(source), flat, states):
        jax.tree.map(np.testing.assert_array_equal, AUGREG.read(other, shapes), expected)


def test_a_class_token_may_hold_its_own_position():
    """As big_vision has it: the table is of the patches alone, and under another name."""
    fields = {**KINDS["vit"], "image_size": SIZE}
    source = renamed(random_arrays(published(fields, SIZE)))
    table = source.pop("Transformer/posembed_input/pos_embedding")
    shapes = shapes_of(built(fields), SIZE)
    source = {f"params/{k}": v for k, v in {**source, "pos_embedding": table[:, 1:]}.items()}
    params = AUGREG.read(source, shapes)["params"]
    np.testing.assert_array_equal(params["position_embedding"][:, 1:], table[:, 1:])
    np.testing.assert_array_equal(params["position_embedding"][:, 0], np.zeros((1, TINY["width"])))


def test_a_representation_layer_is_read():
    fields = {**KINDS["vit"], "image_size": SIZE}
    source = random_arrays(published(fields, SIZE))
    source |= random_arrays({"pre_logits/kernel": (16, 12), "pre_logits/bias": (12,), "head/kernel": (12, 5)})
    params = AUGREG.read(source, shapes_of(ViT(**fields, representation=12), SIZE))["params"]
    np.testing.assert_array_equal(params["representation"]["kernel"], source["pre_logits/kernel"])


def test_everything_that_does_not_fit_is_listed():
    fields = {**KINDS["resnet"], "image_size": SIZE}
    source = random_arrays(published(fields, SIZE))
    del source["Transformer/encoder_norm/bias"], source["block2/unit2/gn3/scale"]
    source |= random_arrays({"pre_logits/bias": (16,), "block3/unit1/conv1/kernel": (1, 1, 4, 4)})
    source["Transformer/posembed_input/pos_embedding"] = np.zeros((1, 50, 12), np.float32)
    with pytest.raises(UserError) as caught:
        AUGREG.read(source, shapes_of(built(fields), SIZE))
    text = str(caught.value)
    assert len(caught.value.lines) == 5
    assert "norm/bias: Transformer/encoder_norm/bias is missing" in text
    assert "backbone/stage_2_block_1/norm_3/scale: block2/unit2/gn3/scale is missing" in text
    assert "pre_logits/bias: in the checkpoint" in text
    assert "block3/unit1/conv1/kernel: in the checkpoint" in text
    assert "pos_embedding has shape (1, 50, 12); this model needs (1, 65, 16)" in text


def test_what_is_no_file_of_arrays_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        npz(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("404: not found")
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", cls=np.array([{"a": 1}], dtype=object))
    whole = tmp_path / "whole.npz"
    np.savez(whole, cls=np.zeros((1, 1, 16)))
    (tmp_path / "short.npz").write_bytes(whole.read_bytes()[:-40])
    for name in ("text.npz", "one.npy", "objects.npz", "short.npz"):
        with pytest.raises(UserError, match=r"cannot be read as a \.npz file"):
            npz(tmp_path / name)
