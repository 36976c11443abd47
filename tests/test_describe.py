"""What a config takes: bytes a device and FLOPs, from shapes alone."""

import resource

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxformer import cli
from jaxformer.analysis.describe import assemble, describe, footprint, for_preset
from jaxformer.config import files as configfile
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.paths import leaves_by_path

FLOAT32 = 4


@pytest.fixture(autouse=True)
def environment(tmp_path, digits_dir, monkeypatch):
    """The digits are there; no other dataset is."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)


def built(config="vit_digits", **changes):
    changes = {"model.width": 64, "model.depth": 2, **changes} if config == "vit_digits" else changes
    return assemble(resolve(configfile.read(config, changes)))


ADAMW = {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05}


def measured(mesh, **changes):
    changes = {"optimizer": ADAMW, "parallel": {"mesh": mesh}, **changes}
    return footprint(built(**changes), compile_step=False)


def test_fsdp_divides_kernels_and_positions_and_leaves_vectors_whole():
    params = leaves_by_path(built().variable_shapes["params"])
    divided = {path: p for path, p in params.items() if path.endswith(("kernel", "position_embedding"))}
    whole = {path: p for path, p in params.items() if path not in divided}
    assert all(path.endswith(("bias", "scale")) for path in whole)
    divided, whole = (FLOAT32 * sum(p.size for p in part.values()) for part in (divided, whole))
    for mesh, parts in (({"data": 8}, 1), ({"data": 4, "fsdp": 2}, 2), ({"fsdp": 8}, 8)):
        held = measured(mesh)
        assert held.parameters == held.gradients == divided // parts + whole
    assert whole < divided / 40  # so 8 devices hold about an eighth each


def test_tensor_divides_heads_and_hidden_units():
    """4 heads and 192 hidden units: half of a block's kernels and of their biases, but for what is added."""
    params = leaves_by_path(built().variable_shapes["params"])
    names = ("query/kernel", "query/bias", "key/kernel", "key/bias", "value/kernel", "value/bias", "out/kernel",
             "up/kernel", "up/bias", "down/kernel", "head/kernel", "head/bias")  # fmt: skip
    halved = sum(p.size for path, p in params.items() if path.endswith(names))
    total = sum(p.size for p in params.values())
    assert measured({"data": 4, "tensor": 2}).parameters == FLOAT32 * (total - halved // 2)


@pytest.mark.parametrize("mesh", [{"data": 8}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_adamw_holds_two_moments_a_parameter_and_some_counters(mesh):
    held = measured(mesh)
    assert 0 < held.optimizer - 2 * held.parameters <= 16
    halved = measured(mesh, optimizer={**ADAMW, "mu_dtype": "bfloat16"})
    assert held.optimizer - halved.optimizer == held.parameters // 2
    assert held.average == 0
    assert measured(mesh, **{"train.ema_decay": 0.99}).average == held.parameters


def test_flops_depend_on_the_batch_and_not_on_the_mesh():
    flops = {measured(mesh).flops for mesh in ({"data": 8}, {"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2})}
    assert len(flops) == 1
    assert measured({"data": 8}, **{"data.batch_size": 128}).flops == 2 * flops.pop()
    assert measured({"data": 8}, **{"train.accumulate": 2, "model.remat": "full"}).flops in {
        measured({"data": 8}).flops
    }


def test_nothing_is_allocated_for_a_large_model():
    before = {id(array) for array in jax.live_arrays()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    large = assemble(resolve(for_preset("vit-h14")))
    text = describe(large, compile_step=False)
    assert "632,045,800" in text  # timm's vit_huge_patch14_224 with 1,000 classes
    new = [array for array in jax.live_arrays() if id(array) not in before]
    assert sum(array.nbytes for array in new) < 1280 * FLOAT32  # the smallest parameter's size
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    assert grown < 0.2 * FLOAT32 * 632_045_800


@pytest.mark.parametrize("percent", [1, 50, 95, 99])
def test_a_share_of_a_dataset_that_is_missing_is_what_tfds_takes(percent):
    config = for_preset("vit-ti16")
    config["data"]["train_split"] = f"train[:{percent}%]"
    batches = assemble(resolve(config)).train_data
    split = tfds.core.SplitInfo(name="train", shard_lengths=[1_281_167], num_bytes=0)
    (taken,) = tfds.core.ReadInstruction.from_spec(f"train[:{percent}%]").to_absolute({"train": split})
    assert batches.num_examples == taken.to
    assert batches.batch_size == 1024
    assert batches.element_spec["image"] == ((224, 224, 3), np.uint8)


def test_training_on_a_missing_dataset_is_as_long_as_its_size_says():
    config = for_preset("vit-ti16")
    assert assemble(resolve(config)).total_steps == -(-90 * 1_281_167 // 1024)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (
            "detr-r50",
            41_577_888,
        ),  # transformers' detr-resnet-50, whose norms' 53,120 numbers are no parameters there
        ("segformer-b0", 3_752_694),  # its segformer-b0-finetuned-ade-512-512
        ("clip-vit-b32", 151_277_313),  # its clip-vit-base-patch32
    ],
)
def test_presets_of_every_kind_are_described(name, parameters):
    shown = describe(assemble(resolve(for_preset(name))), compile_step=False)
    assert f"{parameters:,}" in shown


def test_the_images_of_a_missing_dataset_have_the_size_that_transforms_make():
    assert built("resnet_cifar10").train_data.element_spec["image"][0] == (32, 32, 3)
    resized = built("resnet_cifar10", **{"data.transforms": [{"name": "resize", "size": 48}]})
    assert resized.train_data.element_spec["image"][0] == (48, 48, 3)


@pytest.mark.parametrize(
    "changes", [{"name": "digitz"}, {"train_split": "trian"}, {"train_split": "train[:9]"}]
)
def test_a_dataset_of_unknown_size_is_an_error(changes):
    config = for_preset("vit-ti16")
    config["data"] |= changes
    with pytest.raises(UserError):
        assemble(resolve(config))


@pytest.fixture(scope="module")
def deep():
    """A stack of layers that is scanned over, whose activations are many times its parameters."""
    return {"model.scan": True, "model.depth": 4, "data.batch_size": 256, "optimizer": ADAMW}


def test_activations_shrink_with_microbatches_and_rematerialisation(deep):
    def activations(**changes):
        return footprint(built(**deep, **changes)).activations

    whole = activations()
    assert whole > 256 // 8 * 4 * 16 * 192 * FLOAT32  # what the hidden layers of the MLPs alone take
    assert activations(**{"train.accumulate": 4}) < whole / 2
    assert activations(**{"model.remat": "full"}) < whole / 2


def test_pmap_is_described_too(digits_dir, capsys):
    argv = ["describe", "--config", "vit_digits", "--config.parallel.mode=pmap", "--config.model.depth=1"]
    assert cli.main(argv) == 0
    text = capsys.readouterr().out
    assert "(data=8, fsdp=1, sequence=1, tensor=1; pmap)" in text
    assert "not compiled" not in text


@pytest.mark.parametrize(
    ("preset", "head"),
    [
        ("bert-base", 'BERT with the head "mlm" (model.head), which is counted here, too'),
        ("vit-ti16", "ViT with a head of 1,000 outputs (model.num_classes), which is counted here, too"),
        ("gpt2", "GPT"),
    ],
)
def test_the_head_that_is_counted_is_named(preset, head):
    lines = describe(assemble(resolve(for_preset(preset))), compile_step=False).splitlines()
    assert lines[0] == head


def test_the_size_of_a_missing_dataset_has_its_source():
    text = describe(assemble(resolve(for_preset("bert-base"))), compile_step=False)
    assert "9,035,582,198 tokens, 512 an example: nanoGPT's count" in text
    text = describe(assemble(resolve(for_preset("vit-ti16"))), compile_step=False)
    assert "its 1,281,167 examples (train) are by Russakovsky et al. 2015" in text


def test_what_is_compiled_is_said_before(capsys):
    argv = ["describe", "--config", "vit_digits", "--config.model.depth=1", "--config.train.total=1 step"]
    notice = "compiling the train step for 8 devices; --no-compile leaves that out"
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert notice in err
    assert "Training: 1 step of 64 = 64 examples" in out
    assert cli.main([*argv, "--no-compile"]) == 0
    assert "compiling" not in capsys.readouterr().err
