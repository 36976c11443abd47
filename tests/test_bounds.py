"""Numbers that can hang or kill are refused before anything is made; what fits is not."""

import time
from pathlib import Path

import jax
import pytest

import jaxformer as jf
from jaxformer.analysis import memory
from jaxformer.analysis.describe import assemble, for_preset
from jaxformer.analysis.flops import largest_product
from jaxformer.config.sections import resolve
from jaxformer.errors import ConfigError, UserError
from jaxformer.observe import device
from jaxformer.runs import Run

GIB = 2**30


@pytest.fixture(autouse=True)
def environment(digits_dir, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
    monkeypatch.chdir(tmp_path)


def refusal(overrides, limit=None, monkeypatch=None):
    """The message of an experiment that is not trained."""
    if limit is not None:
        monkeypatch.setattr(memory, "memory_limit", lambda: limit)
    with pytest.raises(UserError) as refused:
        jf.train(jf.experiment("vit_digits", overrides), "run")
    return str(refused.value)


def test_a_model_that_fits_is_not_refused_and_the_question_is_quick():
    experiment = jf.experiment("vit_digits")
    experiment.state_shapes  # noqa: B018 - training needs them, too
    start = time.process_time()
    memory.check_memory(experiment)
    assert time.process_time() - start < 1  # 0.01 s on a machine with nothing else to do


def test_a_model_that_is_too_large_is_refused_with_its_largest_numbers(monkeypatch, tmp_path):
    said = refusal({"model.width": 100_000_000}, 16 * GIB, monkeypatch)
    assert "model: needs at least" in said
    assert "a device has 16 GiB" in said
    assert "model.width=100000000" in said
    assert list(tmp_path.iterdir()) == []


def test_the_state_and_the_gradients_count(monkeypatch):
    experiment = jf.experiment("vit_digits", {"optimizer": {"name": "sgd", "learning_rate": 0.1}})
    params = 4 * sum(leaf.size for leaf in jax.tree.leaves(experiment.variable_shapes["params"]))
    monkeypatch.setattr(memory, "memory_limit", lambda: 2 * params - 1)
    with pytest.raises(UserError, match="model: needs at least"):
        memory.check_memory(experiment)
    monkeypatch.setattr(memory, "memory_limit", lambda: 4 * params)  # and a batch of 64 images of 64 bytes
    memory.check_memory(experiment)


@pytest.mark.parametrize("field", ["batch_size", "eval_batch_size"])
def test_a_batch_that_is_too_large_is_refused_with_one_that_is_not(field, monkeypatch):
    said = refusal({f"data.{field}": 800_000_000}, 16 * GIB, monkeypatch)
    assert f"data.{field}=800000000: needs at least" in said
    assert "for each example, and a device has 16 GiB; use one far below" in said


def test_microbatches_need_less(monkeypatch):
    large = {"data.batch_size": 800_000, "data.eval_batch_size": 64}
    monkeypatch.setattr(memory, "memory_limit", lambda: GIB // 2)
    with pytest.raises(UserError, match=r"data\.batch_size=800000"):
        memory.check_memory(jf.experiment("vit_digits", large))
    memory.check_memory(jf.experiment("vit_digits", large | {"train.accumulate": 100}))


def test_the_largest_product_of_an_example_is_that_of_its_widest_layer():
    experiment = jf.experiment("vit_digits")
    model = experiment.bare_model
    tokens = (model.image_size // model.patch_size) ** 2 + (model.pool == "cls")
    one, two = (largest_product(experiment.forward_pass(rows)) for rows in (1, 2))
    assert two - one == one == tokens * 4 * model.width


def test_a_language_models_training_holds_no_logits_and_fused_attention_no_weights():
    experiment = assemble(resolve(for_preset("gpt2")))
    model, tokens = experiment.bare_model, experiment.bare_model.context_length
    whole, spared = experiment.forward_pass(1), experiment.forward_pass(1, memory.without_logits)
    assert largest_product(whole) == tokens * model.vocab_size
    assert largest_product(spared) == model.num_heads * tokens * tokens
    assert largest_product(spared, batched=False) == tokens * 4 * model.width


def test_cpu_devices_share_the_memory_of_the_machine(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(device, "CGROUP", limit)
    whole = device.memory_limit() * jax.local_device_count()
    assert 2**28 < whole < 2**50
    limit.write_text("max\n")
    assert device.memory_limit() == whole // jax.local_device_count()
    limit.write_text(f"{2**27}\n")
    assert device.memory_limit() == 2**27 // jax.local_device_count()


OVERRIDES = {
    "model.depth=100000": "model.depth=100000: expected 1 or more, and at most 1000",
    "model.width=10**30": "model.width: 1" + "0" * 30 + " is too large; expected less than 2**32",
    "model.layer_scale=-1": "model.layer_scale=-1.0: expected a number above 0",
    "data.prefetch=10**9": "data.prefetch=1000000000: expected 1 or more, and at most 1024",
    "data.read_threads=10**6": "data.read_threads=1000000: expected 1 or more, and at most 1024",
    "train.accumulate=10**9": "does not divide data.batch_size=64: use one that does, such as 64",
    "parallel.mesh={'data': 1, 'tensor': 8}": "mesh.tensor=8 does not divide model.num_heads=4: use one that does",
    "model.max_positions=64": "model.max_positions: ViT has no field 'max_positions'; there are: ",
    "model.hidden_size=64": "model.hidden_size: ViT has no field 'hidden_size'; did you mean 'width'?",
    "seed=10**5000": "expected 0 to 2**32 - 1",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_number_that_cannot_be(override):
    path, _, value = override.partition("=")
    with pytest.raises(ConfigError) as refused:
        jf.experiment("vit_digits", {path: eval(value)})
    assert OVERRIDES[override] in str(refused.value)


def test_the_remedy_for_tensor_divides_the_heads_and_the_devices():
    """Six divides 12 heads, and not the 8 devices."""
    mesh = {"model.num_heads": 12, "model.width": 96, "parallel.mesh": {"data": 1, "tensor": 8}}
    said = r"tensor=8 does not divide model\.num_heads=12: use one that does, such as 4$"
    with pytest.raises(ConfigError, match=said):
        jf.experiment("vit_digits", mesh)
    jf.experiment("vit_digits", mesh | {"parallel.mesh": {"data": 2, "tensor": 4}})


def test_a_misspelt_choice_does_not_hide_what_else_is_wrong():
    wrong = {"model.name": "vitt", "model.width": "wide", "model.depth": 0}
    with pytest.raises(ConfigError) as refused:
        jf.experiment("vit_digits", wrong)
    assert refused.value.lines == (
        "model.name: there is no 'vitt'; did you mean 'vit'?",
        "model.width: expected int, was given 'wide' (str)",
        "model.depth=0: expected 1 or more, and at most 1000",
    )


def test_padding_that_may_shift_all_of_an_image_away_is_refused():
    transforms = [{"name": "pad_and_crop", "padding": 8, "probability": 0.0}]
    with pytest.raises(UserError, match="padding=8: expected less than the image's sides, 8x8 pixels"):
        jf.experiment("vit_digits", {"data.transforms": transforms})
    jf.experiment("vit_digits", {"data.transforms": [{"name": "pad_and_crop", "padding": 7}]})


def test_a_folder_of_datasets_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(UserError, match="there is no such folder; make it"):
        jf.experiment("vit_digits", {"data.data_dir": str(tmp_path / "nowhere")})
    assert list(tmp_path.iterdir()) == []


def test_a_run_does_not_move_in_beside_other_files(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "cat.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"is no run's folder, and holds other files, such as 'cat\.png'"):
        jf.train(jf.experiment("vit_digits"), tmp_path / "images")
    with pytest.raises(UserError, match="gs://bucket/run: is an address, and runs are kept in folders"):
        jf.train(jf.experiment("vit_digits"), "gs://bucket/run")
    assert [path.name for path in tmp_path.rglob("*")] == ["images", "cat.png"]


def test_a_run_does_not_begin_behind_a_link_to_nowhere_or_under_a_name_that_is_too_long(tmp_path):
    config = jf.experiment("vit_digits").config
    (tmp_path / "link").symlink_to("nowhere")
    for folder in (tmp_path / "link", tmp_path / "link" / "run"):
        with pytest.raises(UserError, match=r"link: is a link to nowhere \(nowhere\); choose another folder"):
            Run(folder).check(config)
    for name in ("x" * 300, "x" * 300 + "/run"):
        with pytest.raises(UserError) as error:
            Run(Path(name)).check(config)
        assert (
            str(error.value)
            == f"{'x' * 60} ...: cannot write there (File name too long); choose another folder"
        )
    (tmp_path / "there").mkdir()
    (tmp_path / "good").symlink_to("there")
    Run(tmp_path / "good").check(config)


def test_a_run_begins_beside_logs_and_not_in_a_folder_of_other_things(tmp_path):
    config = jf.experiment("vit_digits").config
    for name in ("log.txt", "nohup.out", "slurm-123.out", ".hidden.png"):
        (tmp_path / name).write_text("jaxformer: ...")
    Run(tmp_path).check(config)
    for name in ("tokenizer.json", "metrics.jsonl", "report.html", "cat.PNG"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(UserError, match=f"holds other files, such as '{name}'; give this run a folder"):
            Run(tmp_path).check(config)
        (tmp_path / name).unlink()
    (tmp_path / "cats").mkdir()
    with pytest.raises(UserError, match="such as 'cats'"):
        Run(tmp_path).check(config)
    (tmp_path / "cats").rmdir()
    for number in range(3):
        (tmp_path / f"module_{number}.py").write_text("")
    with pytest.raises(UserError, match=r"such as 'log\.txt'"):
        Run(tmp_path).check(config)


def test_a_profile_of_steps_that_never_come_is_refused():
    experiment = jf.experiment("vit_digits", {"train.total": "2 steps", "schedule": {"name": "constant"}})
    with pytest.raises(UserError, match='profile="100:200": begins after the last step, which is 2'):
        jf.train(experiment, "run", profile="100:200")


def test_long_values_are_quoted_with_their_beginning_and_end():
    with pytest.raises(ConfigError) as refused:
        jf.experiment("vit_digits", {"eval.monitor": "m" * 5000, "model.pool": "begin" + " p" * 5000 + "end"})
    assert len(str(refused.value)) < 1000
    assert "'begin p p" in str(refused.value)
    assert "p pend'" in str(refused.value)
