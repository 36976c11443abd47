"""What does not fit between a config, its dataset of text and its model is said before training."""

import pytest
from helpers.text_training import BERT_FIELDS, GPT_FIELDS, SIZES, experiment, write

from jaxformer.errors import ConfigError, UserError
from jaxformer.experiment import Experiment


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    return write(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(autouse=True, scope="module")
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


LONG = {"name": "documents", "length": 64}
MISFITS = {
    "no arrays for the task": (
        "causal_lm",
        {"data.examples": {"name": "sequences", "length": 32, "features": ["text"]}},
        "data.examples: batches have labels, token_mask, token_types, tokens, this task needs targets",
    ),
    "a longer text than the context": (
        "causal_lm",
        {"data.examples": LONG},
        "data.examples.length=64: the model takes 48 tokens",
    ),
    "too small a vocabulary": ("causal_lm", {"model.vocab_size": 9}, "model.vocab_size=9: the tokenizer has"),
    "too many classes": (
        "text_classification",
        {"model.num_classes": 2},
        "model.num_classes=2: the dataset has 3 classes; set it to that, or to None",
    ),
    "too many tags": (
        "token_classification",
        {"model.num_classes": 2},
        "model.num_classes=2: the dataset has 3 tags",
    ),
    "masks for a classifier": (
        "text_classification",
        {"data.transforms": [{"name": "mask_tokens"}]},
        "data.transforms: mask_tokens makes targets, which this task does not learn; leave it out",
    ),
    "another head": ("span_qa", {"model.head": "token"}, 'model.head="token": this task needs "span"'),
    "a decoder for classes": (
        "text_classification",
        {"model": GPT_FIELDS},
        'model: GPT has no head "sequence"',
    ),
    "an encoder for the next token": (
        "causal_lm",
        {"model": BERT_FIELDS},
        "model: BERT does not go from token",
    ),
    "a decoder for translations": (
        "translation",
        {"model": GPT_FIELDS},
        "model: GPT does not read one text and",
    ),
    "an image model": (
        "causal_lm",
        {"model": {"name": "vit", "image_size": 8, "patch_size": 4, "num_classes": 3, **SIZES, "depth": 1}},
        "model: ViT does not go from token to token",
    ),
    "texts for an image task": (
        "causal_lm",
        {"task.name": "classification", "eval.monitor": "accuracy"},
        "data.examples: batches have positions, segment_ids, targets, tokens, this task needs image",
    ),
    "numbers for classes": (
        "text_regression",
        {"task.name": "text_classification"},
        "data.examples.label_feature: holds numbers, not classes",
    ),
    "several outputs of a regression": (
        "text_regression",
        {"model.num_classes": 2},
        "model.num_classes=2: a regress",
    ),
    "masks in training alone": (
        "masked_lm",
        {
            "data.eval_transforms": [],
            "data.examples": {"name": "sequences", "length": 48, "features": ["text"]},
        },
        "data.eval_transforms: make no targets",
    ),
    "a metric of more classes": (
        "text_classification",
        {"eval.monitor": "top5"},
        "eval.monitor='top5': with 3 classes it is always 1; choose one of: loss, accuracy, balanced_accuracy",
    ),
    "a metric of entities": (
        "token_classification",
        {
            "data.examples": {
                "name": "tagged",
                "length": 48,
                "words_feature": "words",
                "tags_feature": "kinds",
            },
            "eval.monitor": "f1",
        },
        "eval.monitor='f1': the tags are not of entities (no B-, no I-); choose one of: loss, accuracy",
    ),
    "a text without a first token": (
        "text_classification",
        {"data.tokenizer": {"name": "characters"}},
        "data.tokenizer.template: writes no [CLS] or <s> before a text",
    ),
    "questions without answers in the evaluation": (
        "span_qa",
        {"eval.split": "unanswerable"},
        "eval.split: 2 of its questions have no answer",
    ),
    "no answer at all in training": (
        "span_qa",
        {"data.train_split": "unanswerable"},
        "data.train_split: no window holds its question's answer",
    ),
    "a metric that is not computed": (
        "translation",
        {"task.beams": 0, "eval.monitor": "bleu"},
        "eval.monitor='bleu': not a metric",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_said_before_training(case, datasets):
    kind, changes, message = MISFITS[case]
    with pytest.raises(ConfigError) as error:
        Experiment(experiment(kind, datasets, **changes)).check()
    lines = str(error.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(message)


def test_targets_without_masks_are_refused_by_the_first_batch(datasets):
    built = Experiment(
        experiment("masked_lm", datasets, **{"data.transforms": [], "data.eval_transforms": []})
    )
    built.check()
    with pytest.raises(UserError, match=r"data\.transforms: no token is masked"):
        built.train_data[0]
