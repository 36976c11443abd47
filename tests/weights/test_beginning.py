"""A model begins as another one: `model.pretrained`. What is taken is what is there, however it is laid out."""

import logging

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers.stacking import stack_layers
from helpers.text_runs import config_of, write_texts
from helpers.tiny_models import BESIDE, TINY
from jax.sharding import SingleDeviceSharding

import jaxformer as jf
from jaxformer.config.schema import build
from jaxformer.config.sections import resolve
from jaxformer.errors import UserError
from jaxformer.experiment import Experiment
from jaxformer.models import BACKBONES, CONTRACT, MODELS
from jaxformer.models.layouts import unstack_layers
from jaxformer.paths import leaves_by_path
from jaxformer.tasks.metrics import check_labels
from jaxformer.weights.beginning import first_variables
from jaxformer.weights.export import write_pretrained
from jaxformer.weights.preprocessing import Preprocessing

SOURCE = {
    "name": "bert", "vocab_size": 60, "width": 16, "num_heads": 2, "mlp_dim": 32, "max_positions": 32, "depth": 2,
    "head": "mlm",
}  # fmt: skip
OWN = ("head", "pooler")  # what the source does not have


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A dataset of texts, and a BERT with a head for masked tokens as transformers would write it."""
    folder = tmp_path_factory.mktemp("pretrained")
    write_texts(folder / "data")
    model = build(MODELS, SOURCE, "model", CONTRACT)
    variables = jf.init(model, seed=5, tokens=(1, 4))
    write_pretrained(model, "bert", variables, folder / "source")
    return folder, variables["params"]


def experiment_of(folder, model, **sections):
    """A classification of texts that begins as the source."""
    config = {**config_of("classes", folder / "data"), **sections}
    return Experiment(
        resolve({**config, "model": {"pretrained": str(folder / "source"), "head": "sequence", **model}})
    )


@pytest.mark.parametrize("way", ["plain", "scan", "fsdp", "pmap", "averaged"])
def test_the_first_variables_are_the_sources_and_its_head_is_new(way, there, caplog):
    folder, expected = there
    mesh = {"fsdp": {"parallel": {"mesh": {"data": 2, "fsdp": 4}}}, "pmap": {"parallel": {"mode": "pmap"}}}
    optimizer = {"optimizer": {"name": "schedule_free", "learning_rate": 1e-3}} if way == "averaged" else {}
    experiment = experiment_of(folder, {"scan": way == "scan"}, **mesh.get(way, {}), **optimizer)
    assert (experiment.config.model.width, experiment.config.model.num_classes) == (16, None)
    with caplog.at_level(logging.INFO, "jaxformer"):
        state = experiment.init_state()
    params = unstack_layers(state.params) if way == "scan" else state.params
    found, source = flatten_dict(params, sep="/"), flatten_dict(expected, sep="/")
    taken = {path for path in found if not path.startswith(OWN)}
    assert taken == {path for path in source if not path.startswith("mlm")}
    for path in taken:
        np.testing.assert_array_equal(found[path], source[path], err_msg=path)
    assert found.keys() - taken == {"head/kernel", "head/bias", "pooler/kernel", "pooler/bias"}
    assert np.abs(found["head/kernel"]).max() > 0
    assert "new: head/bias, head/kernel, pooler/bias, pooler/kernel" in caplog.text
    assert "not read: cls.predictions.bias" in caplog.text
    if way == "fsdp":
        shapes = leaves_by_path(experiment.state_shapes.params)
        assert all(leaf.sharding == shapes[path].sharding for path, leaf in leaves_by_path(params).items())
    if way == "averaged":  # the optimizer's own copy begins there, too
        moments = leaves_by_path(state.opt_state)
        copies = [leaf for path, leaf in moments.items() if path.endswith("z/token_embedding/embedding")]
        np.testing.assert_array_equal(copies[0], source["token_embedding/embedding"])


def test_what_does_not_fit_is_listed_by_both_names(there):
    folder, _ = there
    with pytest.raises(UserError) as caught:
        experiment_of(folder, {"mlp_dim": 20, "token_types": 3}).init_state()
    lines = "\n".join(caught.value.lines)
    assert (
        "encoder/block_1/mlp/up/kernel: bert.encoder.layer.1.intermediate.dense.weight has shape (32, 16)"
        in lines
    )
    assert "type_embedding/embedding: bert.embeddings.token_type_embeddings.weight has shape (2, 16)" in lines
    gpt = build(MODELS, {"name": "gpt", "pretrained": str(folder / "source")}, "model", CONTRACT)
    with pytest.raises(UserError, match="is a BERT, and the model a GPT"):
        first_variables(gpt, {})


def test_a_source_that_is_not_there_is_named_before_anything_starts(there):
    folder, _ = there
    with pytest.raises(UserError, match=r"nowhere: there is no such folder"):
        resolve(
            {**config_of("classes", folder / "data"), "model": {"pretrained": "nowhere", "head": "sequence"}}
        )


def test_images_are_shown_as_the_source_saw_them(tmp_path, digits_dir):
    vit = {
        "name": "vit",
        "image_size": 16,
        "patch_size": 8,
        "width": 16,
        "depth": 1,
        "num_heads": 2,
        "num_classes": 3,
    }
    model = build(MODELS, {**vit, "mlp_dim": 32}, "model", CONTRACT)
    view = Preprocessing(
        (16, 16), shorter_side=20, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )
    write_pretrained(
        model,
        "vit",
        jf.init(model, image=(1, 16, 16, 3)),
        tmp_path / "source",
        classes="abc",
        preprocessing=view,
    )
    flip, optimizer = [{"name": "flip"}], {"name": "sgd", "learning_rate": 0.1}

    def resolved(task=(), data=(), **model):
        config = {"train": {"total": "1 steps"}, "schedule": {"name": "constant"}, "optimizer": optimizer}
        data = {"data_dir": str(digits_dir), **dict(data)}
        task, model = (
            {"name": "classification", **dict(task)},
            {"pretrained": str(tmp_path / "source"), **model},
        )
        return resolve({**config, "task": task, "data": data, "model": model})

    plain = resolved()
    assert (plain.task.mean, plain.task.std) == (view.mean, view.std)
    seen = plain.data.eval_transforms
    assert plain.data.transforms == seen
    assert (seen[0].size, seen[0].shorter_side, seen[0].interpolation) == ((16, 16), 20, "bicubic")
    assert resolved(image_size=32).data.eval_transforms[0].shorter_side == 40
    given = resolved(task={"mean": (0.5,)}, data={"transforms": flip})
    assert (given.task.mean, given.task.std) == ((0.5,), view.std)
    assert [type(each).__name__ for each in given.data.transforms] == ["Flip"]
    assert given.data.eval_transforms == seen


def test_towers_begin_as_models_of_their_own(there, tmp_path, caplog):
    """And what the config does not say of images and texts is what these models saw."""
    folder, text = there
    vit = {"name": "vit", "image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2}
    model = build(MODELS, vit | {"mlp_dim": 32, "num_classes": 3}, "model", CONTRACT)
    variables = jf.init(model, seed=7, image=(1, 16, 16, 3))
    view = Preprocessing((16, 16), mean=(0.1, 0.2, 0.3))
    write_pretrained(model, "vit", variables, tmp_path / "vit", classes="abc", preprocessing=view)
    towers = {"image": {"pretrained": str(tmp_path / "vit")}, "embedding": 16, "text_pooling": "mean"}
    towers["text"] = {"pretrained": str(folder / "source"), "head": "none", "pooler": "none", "scan": True}
    data = {"name": "shapes", "examples": {"name": "captions", "length": 12}, "tokenizer": {"name": "bytes"}}
    config = {"task": {"name": "contrastive"}, "model": {"name": "two_towers", **towers}, "data": data}
    config |= {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "schedule": {"name": "constant"}}
    resolved = resolve(config | {"train": {"total": "1 step"}})
    assert resolved.task.mean == view.mean
    assert (resolved.model.image.num_classes, resolved.model.text.width) == (0, 16)

    shapes = jax.eval_shape(
        lambda: resolved.model.init(jax.random.key(0), np.zeros((1, 16, 16, 3)), np.zeros((1, 4), np.int32))
    )
    here = SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda leaf: leaf.update(sharding=here), shapes)
    with caplog.at_level(logging.INFO, "jaxformer"):
        begun = first_variables(resolved.model, shapes)
    image, stacked = (leaves_by_path(variables["params"]), leaves_by_path(stack_layers(text)))
    expected = {f"params/image/{path}": leaf for path, leaf in image.items() if not path.startswith("head")}
    expected |= {f"params/text/{path}": leaf for path, leaf in stacked.items() if not path.startswith("mlm")}
    assert begun.keys() == expected.keys()
    for path, leaf in begun.items():
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path)
    assert "not read: classifier.bias" in caplog.text
    wrong = build(MODELS, {"name": "gpt", "pretrained": str(folder / "source")}, "model", CONTRACT)
    with pytest.raises(UserError, match=r"model\.text\.pretrained: .* is a BERT, and the model a GPT"):
        first_variables(resolved.model.clone(text=wrong), shapes)


def test_backbones_take_the_classes_of_the_data():
    """So each begins as a classifier, too, where it was a part of another model ("RUN#backbone")."""
    for name in BACKBONES:
        fields = {"name": name, **TINY[name], **BESIDE.get(name, {}), "num_classes": None}
        model = build(BACKBONES, fields, "model", CONTRACT)
        assert model.num_classes is None


def test_a_model_without_a_head_is_told():
    with pytest.raises(UserError, match="this model has no head, and so gives no classes"):
        check_labels(0, np.zeros(4, np.int32))
