"""The presets of two towers are the models of transformers' configs, field by field; their sizes are in test_zoo.py."""

import pytest

import jaxformer as jf
from jaxformer.models.presets import PRESETS
from jaxformer.weights.towers_config import CLIP, SIGLIP_TOWERS

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
SO400M = {**LARGE, "hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304}
# A preset -> transformers' class, and the arguments of its configs of both towers that are not their defaults, as the
# config.json of the models that are named in zoo.py have them.
THEIRS = {
    "clip-vit-b32": ("CLIP", {}, {}, {}),
    "clip-vit-b16": ("CLIP", {"patch_size": 16}, {}, {}),
    "clip-vit-l14": (
        "CLIP",
        {**LARGE, "patch_size": 14},
        {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
        {"projection_dim": 768},
    ),
    "siglip-b16": ("Siglip", {}, {}, {}),
    "siglip-l16-256": ("Siglip", {**LARGE, "image_size": 256}, LARGE, {}),
    "siglip-so400m14": (
        "Siglip",
        {**SO400M, "patch_size": 14},
        {**SO400M, "max_position_embeddings": 16},
        {},
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_the_fields_are_those_of_transformers(name):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    cls, image, text, own = THEIRS[name]
    config, vision, words = (getattr(transformers, f"{cls}{part}Config") for part in ("", "Vision", "Text"))
    made = config(vision_config=vision(**image), text_config=words(**text), **own)
    fields = (CLIP if cls == "CLIP" else SIGLIP_TOWERS).fields(
        {**made.to_dict(), "architectures": [f"{cls}Model"]}
    )
    ours, theirs = jf.create_model(name), jf.create_model("two_towers", **fields)
    for part in ("image", "text"):
        mine, other = getattr(ours, part), getattr(theirs, part)
        for field in fields[part].keys() - {"name", "mlp_dim"}:
            assert getattr(mine, field) == getattr(other, field), (part, field)
        assert (mine.mlp_dim or 4 * mine.width) == other.mlp_dim
    for field in fields.keys() - {"image", "text"}:
        assert getattr(ours, field) == getattr(theirs, field), field


def test_none_is_of_another_size_than_those():
    """What differs from a row above is the size of the pictures alone."""
    rest = {
        name: fields
        for name, fields in PRESETS.items()
        if fields["name"] == "two_towers" and name not in THEIRS
    }
    sizes = [{**PRESETS[name], "image": {**PRESETS[name]["image"], "image_size": None}} for name in THEIRS]
    assert all(
        {**fields, "image": {**fields["image"], "image_size": None}} in sizes for fields in rest.values()
    )
