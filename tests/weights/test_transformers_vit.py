"""Our ViT with transformers' weights gives transformers' logits; what does not fit is listed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.stacking import stack_layers

from jaxformer.errors import UserError
from jaxformer.models.vit import ViT
from jaxformer.weights.transformers_image import VIT

SIZE, CLASSES = 16, 7
FIELDS = {
    "image_size": SIZE, "patch_size": 4, "width": 32, "depth": 2, "num_heads": 4, "mlp_dim": 48,
    "num_classes": CLASSES, "activation": "gelu_erf", "norm_epsilon": 1e-12,
}  # fmt: skip


def shapes_of(model):
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """transformers' tensors as its checkpoint file has them, images [B, H, W, C] and its logits."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from safetensors.numpy import load_file

    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=SIZE,
        patch_size=4, num_labels=CLASSES, hidden_act="gelu", layer_norm_eps=1e-12,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    model = transformers.ViTForImageClassification(config).eval()
    with torch.no_grad():
        for (
            parameter
        ) in model.parameters():  # norms and biases, too: nothing may be hidden by a one or a zero
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        image = torch.randn((3, 3, SIZE, SIZE), generator=generator)
        logits = model(image).logits.numpy()
    folder = tmp_path_factory.mktemp("transformers_vit")
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors"), image.permute(0, 2, 3, 1).numpy(), logits


@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_logits_are_those_of_transformers(reference, scan):
    source, image, expected = reference
    params = VIT.read(source, shapes_of(ViT(**FIELDS)))["params"]
    params = stack_layers(params) if scan else params
    model = ViT(**FIELDS, scan=scan)
    logits = jax.jit(lambda p, x: model.apply({"params": p}, x).logits)(params, image)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_everything_that_does_not_fit_is_listed(reference):
    source = dict(reference[0])
    del source["vit.layernorm.bias"]
    source["vit.pooler.dense.bias"] = np.zeros(32, np.float32)
    fields = {**FIELDS, "num_classes": CLASSES + 1, "registers": 2}
    with pytest.raises(UserError) as caught:
        VIT.read(source, shapes_of(ViT(**fields)))
    text = str(caught.value)
    assert len(caught.value.lines) == 5
    assert "norm/bias: vit.layernorm.bias is missing" in text
    assert "vit.pooler.dense.bias: in the checkpoint" in text
    assert "classifier.weight has shape (7, 32); this model needs (8, 32)" in text
    assert "classifier.bias has shape (7,); this model needs (8,)" in text
    assert "register_tokens: the table has no tensor" in text


def test_a_checkpoint_with_more_layers_is_refused(reference):
    with pytest.raises(UserError, match=r"vit\.encoder\.layer\.1\.[\w.]+: in the checkpoint"):
        VIT.read(reference[0], shapes_of(ViT(**{**FIELDS, "depth": 1})))
