"""What `predict` answers to an input does not depend on the inputs beside it, for every task."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.scenes import images_config, write_scenes
from helpers.text_runs import LABELS, SENTENCE, config_of, with_random_parameters, write_texts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxformer.config import schema
from jaxformer.errors import UserError
from jaxformer.inference.loaded import LoadedRun
from jaxformer.inference.writers import AboutPicture, writer_of
from jaxformer.tasks import TASKS

WORDS = st.sampled_from([*SENTENCE.split(), *LABELS, "Zürich", "-"])
TEXTS = st.lists(WORDS, min_size=1, max_size=30).map(" ".join)
IMAGES = st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 9)).map(
    lambda one: np.random.default_rng(one[2]).integers(0, 256, (*one[:2], 3), np.uint8)
)
# Of each task: the run, changes of its config, and its inputs.
IMAGE_TASKS = ("classification", "detection", "segmentation", "captioning", "coca")
SIZES = {"eval_transforms": [{"name": "resize", "size": 32}]}
CASES = {
    "classification": ("classification", {"data": SIZES}, IMAGES),
    "detection": ("detection", {}, IMAGES),
    "segmentation": ("segmentation", {}, IMAGES),
    "captioning": ("captioning", {"data": SIZES}, IMAGES),
    "coca": ("coca", {"data": SIZES}, IMAGES),
    "text_classification": ("classes", {}, TEXTS),
    "text_regression": ("pairs", {}, st.tuples(TEXTS, TEXTS)),
    "token_classification": ("tags", {}, TEXTS.map(str.split)),
    "masked_lm": ("masks", {}, st.tuples(TEXTS, TEXTS).map(lambda pair: f"[MASK] {' [MASK] '.join(pair)}")),
    "span_qa": ("questions", {}, st.tuples(st.just("what comes after cat"), TEXTS)),
    "translation": ("translation", {}, st.lists(WORDS, min_size=1, max_size=4).map(" ".join)),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs with random parameters by task, each made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("runs"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMER_CACHE", str(root / "cache"))
        write_texts(root / "data")
        write_scenes(root / "data")

        def opened(task):
            if task not in made:
                name, changes, _ = CASES[task]
                config = (images_config if task in IMAGE_TASKS else config_of)(name, root / "data")
                config |= {part: {**config[part], **fields} for part, fields in changes.items()}
                made[task] = LoadedRun(with_random_parameters(config, root / task))
            return made[task]

        yield SimpleNamespace(opened=opened)


def assert_alike(one, other):
    """Compares JSON values, numbers to 1e-6 of what is at least 1."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for pair in zip(one, other):
            assert_alike(*pair)
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-6, abs=2e-6)  # answers are rounded to 6 places
    elif not isinstance(one, np.ndarray):
        assert one == other


def test_every_task_that_predicts_is_here():
    assert set(CASES) == {name for name, task in TASKS.items() if schema.load(task).reads is not None}


@pytest.mark.parametrize("task", CASES)
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_files_in_any_grouping_are_answered_as_one_by_one(task, runs, data):
    run = runs.opened(task)
    inputs = data.draw(st.lists(CASES[task][2], min_size=2, max_size=5))
    together = run.predict(inputs)
    assert len(together) == len(inputs)
    for one, answer in zip(inputs, together):
        assert_alike(run.predict([one])[0], answer)


def test_a_coca_compares_in_any_grouping_and_writes(runs):
    run, texts = runs.opened("coca"), ["red", "blue under red"]
    images = [np.random.default_rng(n).integers(0, 256, (20 + n, 30, 3), np.uint8) for n in range(3)]
    together = list(run.zero_shot(images, texts))
    for image, answer in zip(images, together):
        assert_alike(next(iter(run.zero_shot([image], texts))), answer)
        assert sum(each["probability"] for each in answer["predictions"]) == pytest.approx(1, abs=1e-5)
    writer = writer_of(run, images[0])
    assert isinstance(writer, AboutPicture)
    with pytest.raises(UserError, match="writes about images: give it one"):
        writer_of(run)
