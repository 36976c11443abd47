"""CLIP and SigLIP of transformers: the same vectors, logits, loss and gradients, in and out again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import jaxformer as jf
from jaxformer.tasks import comparing
from jaxformer.weights.export import write_pretrained

VOCABULARY, LENGTH = 43, 9
SIZES = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION = {**SIZES, "image_size": 16, "patch_size": 8}
TEXT = {
    **SIZES,
    "hidden_size": 18,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
    "bos_token_id": 41,
    "eos_token_id": 42,
}
KINDS = {
    "clip": ("CLIP", {**VISION}, {**TEXT}, {"projection_dim": 12}),
    "clip, gelu": (
        "CLIP",
        {**VISION, "hidden_act": "gelu"},
        {**TEXT, "hidden_act": "gelu"},
        {"projection_dim": 12},
    ),
    "siglip": ("Siglip", VISION, {**TEXT, "projection_size": 24, "pad_token_id": 1}, {}),
}
PICTURES = 4


def reference(kind):
    """A random model of transformers', without ones and zeros that could hide a mistake, and its inputs."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name, vision, text, own = KINDS[kind]
    classes = (getattr(transformers, f"{name}{part}Config") for part in ("", "Vision", "Text"))
    config, of_vision, of_text = classes
    torch.manual_seed(0)
    made = config(vision_config=of_vision(**vision), text_config=of_text(**text), **own)
    model = getattr(transformers, f"{name}Model")(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
        model.logit_scale.fill_(np.log(7.0) if name == "CLIP" else np.log(120.0))  # SigLIP's is not clipped
    rng = np.random.default_rng(0)
    lengths = np.array([LENGTH, 5, 3, 6])
    mask = np.arange(LENGTH) < lengths[:, None]
    tokens = np.where(mask, rng.integers(2, 40, mask.shape), 1)
    tokens[np.arange(PICTURES), lengths - 1] = 42
    pixels = rng.normal(size=(PICTURES, 16, 16, 3)).astype(np.float32)
    inputs = {
        "input_ids": torch.tensor(tokens),
        "pixel_values": torch.tensor(pixels.transpose(0, 3, 1, 2)),
        **({"attention_mask": torch.tensor(mask.astype(np.int64))} if name == "CLIP" else {}),
    }
    return (
        model,
        inputs,
        {"image": pixels, "tokens": np.where(mask, tokens, 7 * (name != "CLIP")), "token_mask": mask},
    )


def close(found, expected, name=""):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_towers_come_in_and_go_out(kind, tmp_path):
    theirs, inputs, ours = reference(kind)
    theirs.save_pretrained(tmp_path / "theirs")
    source = jf.load_pretrained(tmp_path / "theirs")
    model, params = source.model, source.variables["params"]
    expected = theirs(**inputs, return_loss=True)
    expected.loss.backward()

    def loss(params):
        outputs = model.apply({"params": params}, **ours)
        losses = comparing.sigmoid_losses if kind == "siglip" else comparing.softmax_losses
        return jnp.mean(losses(outputs, {"example_mask": jnp.ones(PICTURES, bool)})), outputs

    (found, outputs), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    close(outputs.image, expected.image_embeds.detach().numpy())
    close(outputs.text, expected.text_embeds.detach().numpy())
    logits = outputs.scale[:, None] * (outputs.image @ outputs.text.T) + outputs.bias[:, None]
    close(logits, expected.logits_per_image.detach().numpy())
    close(found, expected.loss.item())
    of_theirs = {name: x.grad.numpy() for name, x in theirs.named_parameters() if x.grad is not None}
    written = source.family.write({"params": gradients})
    assert written.keys() == dict(theirs.named_parameters()).keys()
    largest = max(np.abs(x).max() for x in of_theirs.values())
    for name, gradient in written.items():
        np.testing.assert_allclose(
            gradient, of_theirs.get(name, 0), rtol=1e-3, atol=1e-4 * largest, err_msg=name
        )

    write_pretrained(model, "two_towers", source.variables, tmp_path / "ours")
    cls = type(theirs)
    again, loading = cls.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(loading[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for (name, one), (_, other) in zip(theirs.named_parameters(), again.named_parameters(), strict=True):
        assert np.array_equal(one.detach().numpy(), other.detach().numpy()), name
    outputs = again.eval()(**inputs)
    close(outputs.logits_per_image.detach().numpy(), expected.logits_per_image.detach().numpy())
    assert jf.load_pretrained(tmp_path / "ours").model == model
    back = flatten_dict(jf.load_pretrained(tmp_path / "ours").variables)
    assert all(np.array_equal(back[path], leaf) for path, leaf in flatten_dict(source.variables).items())
