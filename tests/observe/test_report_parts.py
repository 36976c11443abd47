"""Parts of the report that depend on what the run holds: losses apart, files' names, many metrics, wide tables."""

import json
import re
from functools import partial

import numpy as np
import pytest
from PIL import Image

from jaxformer.data.base import open_source
from jaxformer.data.config import DataConfig
from jaxformer.importing.pipeline import import_dataset
from jaxformer.observe.pages import panels
from jaxformer.observe.report import write_report
from jaxformer.observe.samples import RETRIEVAL, Shown, write_samples
from jaxformer.tasks import retrieval
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.detection import Detection
from jaxformer.tasks.segmentation import Segmentation
from jaxformer.tasks.text_classification import TextClassification

TASK = partial(Classification, mean=(0.5,), std=(0.5,))


def changed(folder, name, **values):
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def titles(charts):
    return [re.search(r'aria-label="([^"]*) over steps"', chart)[1] for chart in charts]


def test_losses_that_cannot_be_compared_have_a_plot_each():
    steps = np.arange(3)
    curves = dict.fromkeys(
        ("train/loss", "eval/loss", "train/accuracy", "eval/accuracy"), (steps, 1.0 + steps)
    )
    assert titles(panels(curves)[0]) == ["loss", "accuracy"]
    main, other = panels(curves, same_loss=False)
    assert (titles(main), other) == (["loss of training", "loss of evaluations", "accuracy"], [])


@pytest.mark.parametrize(
    ("task", "same"),
    [
        (TASK(), True),
        (TASK(label_smoothing=0.1), False),
        (TASK(mixup=0.2), False),
        (TASK(cutmix=1.0), False),
        (TextClassification(), True),
        (TextClassification(label_smoothing=0.1), False),
        (Segmentation(mean=(0.5,), std=(0.5,)), True),
        (Segmentation(mean=(0.5,), std=(0.5,), dice=1.0), False),
        (Detection(mean=(0.5,), std=(0.5,)), False),
    ],
)
def test_tasks_know_whether_their_losses_can_be_compared(task, same):
    assert task.same_loss is same


def test_the_report_draws_them_apart_where_the_run_says_so(make_run):
    folder = make_run()
    assert "loss of evaluations" not in write_report(folder).read_text()
    changed(folder, "result.json", same_loss=False)
    assert "loss of evaluations" in write_report(folder).read_text()


def test_of_many_metrics_the_first_are_at_the_top_and_the_others_a_click_away(make_run):
    folder = make_run()
    changed(folder, "result.json", final={f"metric_{k}": 0.1 * k for k in range(16)} | {"accuracy": 0.5})
    top = write_report(folder).read_text().partition("More metrics (13)")[0]
    labels = re.findall(r'<div class="label">([^<]*)</div>', top)
    assert labels == ["accuracy", "metric 0", "metric 1", "metric 2", "time", "examples/s", "MFU"]


def test_a_wide_table_has_the_whole_width(make_run):
    folder = make_run()
    assert "grid-column: 1 / -1" not in write_report(folder).read_text()
    row = {"name": "cat", **{f"score_{k}": 0.5 for k in range(6)}}
    changed(folder, "evaluation.json", per_class=[row])
    assert "grid-column: 1 / -1" in write_report(folder).read_text()


def test_retrieval_has_its_pictures_and_what_is_near_them(make_run):
    folder = make_run()
    image = np.eye(4, dtype=np.float32)
    text = image[[0, 1, 3, 2]]  # the last two pictures are near each other's texts
    seen = retrieval.gallery({"image": image, "text": text, "picture": np.arange(4), "caption": np.arange(4)})
    index = np.array([3, 5, 6, 9])
    names = ["cat", "dog", "<owl>", "fox"]
    table = retrieval.close_up(seen, retrieval.ranks(image, text, seen.pairs), index, names.__getitem__)
    assert (table["pictures"], table["texts"]) == (index.tolist(), names)
    assert table["similarity"] == (image @ text.T).tolist()
    assert np.array_equal(table["right"], np.eye(4, dtype=bool))
    assert table["nearest_texts"][0][0] == {"text": "cat", "similarity": 1.0, "right": True}
    assert table["nearest_pictures"][2][0] == {"picture": 9, "similarity": 1.0, "right": False}
    hardest = {"picture": 6, "text": "<owl>", "similarity": 0.0, "rank": 3, "right": True}
    assert table["hardest"][0] == hardest | {"instead": "fox", "instead_similarity": 1.0}
    assert len(table["hardest"]) == 2  # the others are the nearest to theirs
    assert retrieval.pictures_of(table) == index.tolist()
    changed(folder, "evaluation.json", retrieval=table)
    assert "Hardest pairs" not in write_report(folder).read_text()  # there are no pictures yet
    rng = np.random.default_rng(0)
    shown = [
        Shown({"index": i, "correct": None}, rng.integers(0, 256, (8, 8, 3), np.uint8))
        for i in index.tolist()
    ]
    write_samples(folder, shown, kind=RETRIEVAL)
    page = write_report(folder).read_text()
    for title in ("Similarity", "Nearest texts", "Nearest pictures", "Hardest pairs"):
        assert page.count(f"<strong>{title}</strong>") == 1
    assert "&lt;owl&gt;" in page
    assert "<owl>" not in page
    # A row of the matrix, its texts, among the nearest of each of four texts, and one of the hardest.
    assert page.count('alt="picture 9"') == 7
    of_texts = retrieval.neighbours(text[[0, 0, 1]], ["a", "b", "<c>"], np.array([[1, 0]]))
    assert of_texts["nearest_texts"][0][0] == {"text": "b", "similarity": 1.0, "right": True}
    assert [len(found) for found in of_texts["nearest_texts"]] == [2, 2, 2]  # the others
    changed(folder, "evaluation.json", retrieval=of_texts)
    page = write_report(folder).read_text()
    assert page.count("&lt;c&gt;</div>") == 2
    assert "<strong>Nearest pictures</strong>" not in page
    assert retrieval.neighbours(text * np.nan, names, np.zeros((0, 2), int)) == {}
    broken = retrieval.close_up(
        retrieval.gallery({"image": image * np.nan, "text": text, "picture": index, "caption": index}),
        np.zeros(4, int),
        index,
        names.__getitem__,
    )
    assert broken == {}


def test_a_sample_has_the_name_of_its_file(make_run):
    folder = make_run()
    file = folder / "samples" / "samples" / "samples.json"
    content = json.loads(file.read_text())
    content["samples"][0]["file"] = "cats/<tom>.png"
    file.write_text(json.dumps(content))
    assert '<div class="soft file">cats/&lt;tom&gt;.png</div>' in write_report(folder).read_text()


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_imported_images_keep_the_names_of_their_files(cache, tmp_path):
    for number in range(4):
        file = tmp_path / "files" / "train" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(file)
    import_dataset("images", tmp_path / "files", "pets", str(tmp_path / "tfds"), test_share=0)
    data = DataConfig(name="pets", data_dir=str(tmp_path / "tfds"), batch_size=2, cache=cache)
    source = open_source(data, "train")
    files = {source.file_of(index) for index in range(4)}
    assert {name[-5:] for name in files} == {"0.png", "1.png", "2.png", "3.png"}
    for index in range(4):
        number = int(source.file_of(index)[-5])
        assert (source.read([index])[0]["image"] == 40 * number).all()


def test_a_dataset_without_names_of_files_has_none(digits_dir):
    data = DataConfig(name="digits", data_dir=str(digits_dir), batch_size=2)
    assert open_source(data, "test").file_of(0) is None
