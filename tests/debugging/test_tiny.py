"""The tiny form of a config, and the shapes through a model."""

import jax
import pytest

from jaxformer import cli
from jaxformer.analysis.describe import assemble, for_preset
from jaxformer.config import files
from jaxformer.config.schema import to_dict
from jaxformer.config.sections import resolve
from jaxformer.debugging.tiny import tiny

PRESETS = [
    "vit-l14",
    "r50-vit-b16",
    "mixer-b16",
    "nonlocal-resnet-50",
    "botnet-50",
    "coatnet-2",
    "maxvit-t",
    "cvt-21",
]
PRESETS += ["cct-14-7x2-384", "swin-t", "convnext-t", "bert-base", "llama-3-8b", "t5-v1.1-base"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_has_a_tiny_form(name):
    small = assemble(tiny(resolve(for_preset(name)), layers=1), jax.devices()[:1])
    params = jax.tree.leaves(small.variable_shapes["params"])
    small.check()
    vocabulary = 2 * 16 * (getattr(small.bare_model, "vocab_size", None) or 0)
    assert sum(leaf.size for leaf in params) - vocabulary < 500_000


def test_what_decides_how_it_is_built_stays():
    config = resolve(
        files.read(
            "gpt_shakespeare_bpe",
            {"optimizer.freeze": ["token_embedding"], "train.accumulate": 4, "schedule.warmup": "300 steps"},
        )
    )
    before, after = to_dict(config), to_dict(tiny(config))
    for section in ("task", "optimizer", "precision", "seed"):
        assert after[section] == before[section]
    kept = ("norm", "activation", "qk_norm", "positions", "dropout", "use_bias", "tied")
    assert {name: after["model"][name] for name in kept} == {name: before["model"][name] for name in kept}
    sizes = {"width": 16, "depth": 4, "num_heads": 2, "num_kv_heads": 1, "mlp_dim": 32, "context_length": 32}
    assert {name: after["model"][name] for name in sizes} == sizes
    assert (after["schedule"]["warmup"], after["schedule"]["final"]) == ("10%", 0.1)
    assert (after["train"]["total"], after["train"]["accumulate"], after["data"]["batch_size"]) == (
        "20 steps",
        2,
        16,
    )


def test_images_that_are_resized_become_small_and_others_stay():
    small = tiny(resolve(files.read("vit_s16_imagenet")))
    assert (small.model.image_size, small.model.patch_size) == (32, 16)
    assert [t.size for t in (*small.data.transforms, *small.data.eval_transforms) if hasattr(t, "size")] == [
        32,
        32,
    ]
    assert tiny(resolve(files.read("mixer_digits"))).model.image_size == 8


def test_the_tiny_form_of_a_tiny_form_is_itself():
    once = tiny(resolve(files.read("transformer_multi30k")))
    assert tiny(once) == once


def test_the_shapes_through_a_model(digits_dir, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    assert cli.main(["describe", "--config", "vit_digits", "--trace", "--config.model.depth=2"]) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()[2:]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[0][:3] == ["(model)", "ViT", "float32 [64, 8, 8, 1]"]
    # 48 x 192 weights and as many biases as outputs
    assert ["up", "Dense", "float32 [64, 16, 48]", "float32 [64, 16, 192]", f"{48 * 192 + 192:,}"] in cells
    assert [row[0] for row in cells if row[1] == "Block"] == ["block_0", "block_1"]
    assert cells[-1] == ["head", "Dense", "float32 [64, 48]", "float32 [64, 10]", f"{48 * 10 + 10}"]
