"""Configs whose datasets are not here: what is built all the same, and what is said where that cannot be."""

from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.shipped import read

from jaxformer import cli
from jaxformer.analysis.describe import assemble
from jaxformer.config.sections import resolve
from jaxformer.data.shapes import prepare_shapes
from jaxformer.debugging.checks import made_up_batch
from jaxformer.errors import NotPrepared, UserError

CONFIGS = sorted(Path(__file__).parent.parent.glob("configs/*.py"))
# What only the texts or the user's own images tell, by the config.
NEEDS = {
    "bert_mlm_shakespeare": {"train.total": "1000 steps"},
    "bert_xquad": {"train.total": "1000 steps"},
    "captioner_stamps": {"train.total": "1000 steps"},
    "gpt_shakespeare": {"model.vocab_size": 65},
    "gpt_shakespeare_bpe": {"train.total": "1000 steps"},
    "lit_minilm_emoji": {"train.total": "1000 steps"},
    "minilm_xquad": {"train.total": "1000 steps"},
    "own_images": {"model.num_classes": 3},
    "siglip_emoji": {"train.total": "1000 steps"},
    "vit_s14_cifar10": {"train.total": "1000 steps"},
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The folder of the shapes, which take seconds to draw."""
    return prepare_shapes(tmp_path_factory.mktemp("embedded")).parent


@pytest.fixture(autouse=True)
def no_datasets(tmp_path, monkeypatch, shapes):
    """A folder without datasets but what would be made in it, and none in the cache."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "shapes").symlink_to(shapes)
    monkeypatch.setenv("JAXFORMER_CACHE", str(tmp_path / "cache"))


def built(name, **changes):
    return assemble(resolve(read(name, changes)), jax.devices()[:1])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_is_built_without_its_dataset(path):
    """It is right as a whole, and its loss is traced."""
    experiment = built(str(path), **NEEDS.get(path.stem, {}))
    experiment.check()
    assert experiment.total_steps > 0
    task, model = experiment.task, experiment.model

    def loss(variables, batch):
        return task.loss(model.apply(variables, **task.inputs(batch), deterministic=True), batch)

    if task.distillation is None:  # else a batch has what the teacher says
        losses = jax.eval_shape(loss, experiment.variable_shapes, experiment.batch_shapes)
        assert losses
        assert losses.keys() <= jax.eval_shape(task.counts, experiment.batch_shapes).keys()


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_train_step_is_traced_without_its_dataset(path):
    experiment = built(str(path), **NEEDS.get(path.stem, {}))
    if experiment.task.distillation is None:
        experiment.train_step().trace(experiment.state_shapes, experiment.batch_shapes)


@pytest.mark.parametrize("name", NEEDS)
def test_what_is_not_known_is_asked_for(name):
    with pytest.raises(NotPrepared) as refused:
        built(name)
    first, *_, last = refused.value.lines
    assert "is not prepared in" in first
    (field,) = NEEDS[name]
    assert last == f"or give what it would tell: {field}{' in steps' if field == 'train.total' else ''}"


def test_all_that_is_not_known_is_asked_for_at_once():
    with pytest.raises(NotPrepared) as refused:
        built("own_images", **{"data.transforms": [], "train.total": "3 epochs"})
    assert refused.value.lines[-1].endswith(
        "model.num_classes, a size in data.transforms, as in dict(name='resize', size=224), train.total in steps"
    )


def test_an_epoch_of_unknown_length_is_no_length_for_a_schedule():
    changes = {"model.num_classes": 3, "schedule": {"name": "cosine", "warmup": "2 epochs"}}
    with pytest.raises(UserError, match='"2 epochs": without the dataset no one knows how long an epoch is'):
        built("own_images", **changes).check()


def test_names_of_classes_and_tokens_are_those_of_the_dataset():
    tags = built("bert_wnut17")
    assert tags.bare_model.num_classes == 13
    assert {name[:2] for name in tags.train_data.class_names} == {"O", "B-", "I-"}
    assert tags.bare_model.vocab_size == 4000
    assert "all 4,000 tokens that it may" in tags.train_data.facts[1]
    pairs = built("transformer_multi30k")
    assert pairs.task.eos_id == 3  # <pad> <unk> <s> </s>
    assert pairs.train_data.num_examples == 29_000


def test_a_tokenizer_that_learns_nothing_is_the_configs_own():
    changes = {"data.tokenizer": {"name": "bytes", "template": "gpt"}}
    assert built("gpt_shakespeare", **changes).bare_model.vocab_size == 257


def test_images_are_what_the_last_transform_makes():
    changes = {"model.num_classes": 3, "data.transforms": [{"name": "resize", "size": [48, 64]}]}
    assert built("own_images", **changes).train_data.element_spec["image"] == ((48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("bert_sst2_scratch", {"tokens": 8000, "token_types": 2, "labels": 2}),
        ("bert_wnut17", {"tokens": 4000, "labels": 13}),
        ("detr_bccd", {"image": 256, "labels": 3, "boxes": 1}),
        ("segmenter_camvid", {"image": 256, "segmentation": 11}),
        ("transformer_multi30k", {"tokens": 6000, "decoder_tokens": 6000, "targets": 6000}),
    ],
)
def test_what_is_made_up_for_a_debugging_batch_is_what_the_model_takes(name, below):
    experiment = built(name, **{"data.batch_size": 8, "data.eval_batch_size": 8})
    batch = made_up_batch(experiment)
    spec = {key: (array.shape[1:], array.dtype) for key, array in batch.items()}
    assert spec == experiment.train_data.element_spec
    assert all(0 <= batch[key].min() <= batch[key].max() < limit for key, limit in below.items())
    if "extent" in batch:
        assert (batch["extent"] == experiment.config.data.examples.frame(train=True)).all()


def test_describe_says_what_is_not_known(capsys):
    words = ["describe", "--config", "own_images", "--config.model.num_classes=3", "--no-compile"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "Training: 1,000 steps of 32 = 32,000 examples\n" in said
    assert "mine is not here, and it is not known how many examples it has" in said
