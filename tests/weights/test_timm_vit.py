"""Our ViT with timm's weights gives timm's logits: plain, distilled (DeiT), with LayerScale, hybrid."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.timm_reference import timm

from jaxformer.config.schema import resolve
from jaxformer.errors import UserError
from jaxformer.models.presets import preset
from jaxformer.models.vit import ViT
from jaxformer.weights.timm import VIT

SIZE, CLASSES = 16, 7
FIELDS = {
    "image_size": SIZE, "patch_size": 4, "width": 32, "depth": 2, "num_heads": 4, "mlp_dim": 128,
    "num_classes": CLASSES, "activation": "gelu_erf",
}  # fmt: skip
THEIRS = {
    "img_size": SIZE, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": CLASSES,
}  # fmt: skip


def shapes_of(model, size=SIZE):
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def randomised(model):
    """`model` of timm with no zero and no one left in it, to evaluate; and its tensors."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval(), {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def random_image(size=SIZE):
    return np.random.default_rng(0).normal(size=(3, size, size, 3)).astype(np.float32)


def channels_first(image):
    import torch

    return torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module")
def distilled():
    """timm's distilled ViT and its tensors."""
    timm()
    from timm.models.deit import VisionTransformerDistilled

    return randomised(VisionTransformerDistilled(**THEIRS))


def check(model, reference, source, size=SIZE):
    """The logits agree to a hundred-thousandth."""
    import torch

    image = random_image(size)
    with torch.no_grad():
        expected = reference(channels_first(image)).numpy()
    params = VIT.read(source, shapes_of(model, size))["params"]
    logits = jax.jit(lambda p, x: model.apply({"params": p}, x).logits)(params, image)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_logits_are_those_of_timm(layer_scale):
    timm()
    from timm.models.vision_transformer import VisionTransformer

    check(
        ViT(**FIELDS, layer_scale=layer_scale),
        *randomised(VisionTransformer(**THEIRS, init_values=layer_scale)),
    )


@pytest.mark.parametrize(("stage_sizes", "patch"), [((1, 2), 1), ((), 8)], ids=["ResNet", "stem"])
def test_logits_of_hybrids_are_those_of_timm(stage_sizes, patch):
    timm()
    from timm.layers import HybridEmbed
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_hybrid import _resnetv2

    size, ours = 64, preset("r50-vit-b16")["backbone"]
    ours |= {"stage_sizes": stage_sizes, "norm_epsilon": 1e-5, "standardize": "timm"}
    errors = []
    fields = {**FIELDS, "image_size": size, "patch_size": patch, "backbone": ours}
    model = resolve(ViT, fields, "model", errors)
    assert not errors, errors

    def embed(**kwargs):
        return HybridEmbed(_resnetv2(stage_sizes), **kwargs)

    theirs = {**THEIRS, "img_size": size, "patch_size": patch, "embed_layer": embed}
    check(model, *randomised(VisionTransformer(**theirs)), size)


def test_evaluated_a_distilled_model_gives_the_mean_of_its_heads(distilled):
    check(ViT(**FIELDS, distillation_token=True), *distilled)


def test_in_training_each_head_gives_its_own(distilled):
    import torch

    reference, source = distilled
    model, image = ViT(**FIELDS, distillation_token=True), random_image()
    reference.set_distilled_training(True)
    with torch.no_grad():  # (there is no dropout that would tell training from evaluation)
        own, taught = (x.numpy() for x in reference.train()(channels_first(image)))
    reference.eval().set_distilled_training(False)
    params = VIT.read(source, shapes_of(model))["params"]
    outputs = jax.jit(lambda p, x: model.apply({"params": p}, x, deterministic=False))(params, image)
    np.testing.assert_allclose(outputs.logits, own, rtol=1e-4, atol=1e-5 * np.abs(own).max())
    np.testing.assert_allclose(outputs.distilled, taught, rtol=1e-4, atol=1e-5 * np.abs(taught).max())


def test_a_plain_checkpoint_is_no_distilled_model(distilled):
    source = {name: x for name, x in distilled[1].items() if name not in ("dist_token", "head_dist.bias")}
    with pytest.raises(UserError) as caught:
        VIT.read(source, shapes_of(ViT(**FIELDS, distillation_token=True)))
    assert sorted(line.split(":")[0] for line in caught.value.lines) == [
        "distillation_token",
        "head_distilled/bias",
    ]


@pytest.mark.parametrize("kind", ["", "-distilled"])
@pytest.mark.parametrize(("size", "theirs"), [("ti", "tiny"), ("s", "small"), ("b", "base")])
def test_deits_have_as_many_parameters_as_timms(size, theirs, kind):
    import torch

    fields = preset(f"deit-{size}16{kind}", scan=True)
    assert fields.pop("name") == "vit"
    ours = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(ViT(**fields), 224)))
    with torch.device("meta"):
        reference = timm().create_model(
            f"deit_{theirs}{kind.replace('-', '_')}_patch16_224", weight_init="skip"
        )
    assert ours == sum(p.numel() for p in reference.parameters())
