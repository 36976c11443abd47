"""Predictions for image files: order, fixed batches, broken files, and the drawn images."""

import io
import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from jaxformer.data.decoding import FORMATS, decode_image
from jaxformer.drawing import BAR, LARGEST, SMALLEST, annotate, shorten
from jaxformer.errors import UserError
from jaxformer.inference.inputs import find_images, place_images
from jaxformer.inference.loaded import LoadedRun
from jaxformer.inference.predict import answered, predict, predict_files
from jaxformer.inference.texts import as_given, read_given
from jaxformer.models.outputs import ImageOutputs
from jaxformer.parallel.compile import Layout
from jaxformer.parallel.mesh import make_mesh
from jaxformer.tasks.classification import Classification
from jaxformer.tasks.language import CausalLM
from jaxformer.verbs.predict import Predict

NAMES = [f"digit {i}" for i in range(10)]
DIGITS = load_digits()
IMAGES = (DIGITS.images * 255 / 16).round().astype(np.uint8)
CENTRES = np.stack([IMAGES[DIGITS.target == k].mean(0) for k in range(10)])


def preprocess(image):
    if not isinstance(image, np.ndarray):
        image = decode_image(image.read_bytes(), channels=1)
    return cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)[:, :, None]


def logits_of(pixels):
    """A classifier that is right about nine times in ten: distances to the mean digits, of pixels in 0..255."""
    return -jnp.abs(pixels[:, None, :, :, 0] - CENTRES[None]).mean((-1, -2)) / 4


class NearestCentre:
    """The classifier as a model of normalised images; it remembers the shapes that it was compiled for."""

    def __init__(self, logits_of=logits_of):
        self.logits_of, self.shapes = logits_of, []

    def apply(self, variables, image, deterministic):
        self.shapes.append((image.shape, image.dtype))
        logits = self.logits_of(255 * (0.5 + 0.5 * image))
        return ImageOutputs(logits, logits, logits)


def a_run(model=None, names=NAMES, batch_size=32):
    """What `predict` needs of a trained run."""
    run = SimpleNamespace(
        config=SimpleNamespace(data=SimpleNamespace(eval_transforms=())),
        model=model or NearestCentre(),
        task=Classification(),
        variables={},
        tokenizer=None,
        class_names=names,
        batch_size=batch_size,
        layout=Layout("jit", make_mesh({"data": -1}, jax.devices()[:1])),
        example=lambda image: {"image": preprocess(image)},
    )
    run.answered = partial(answered, run)
    return run


@pytest.fixture
def digits(tmp_path):
    """Twelve digits as files of every kind, their names against their order."""
    folder = tmp_path / "digits"
    (folder / "more").mkdir(parents=True)
    paths = []
    for i, kind in enumerate(["png", "jpg", "webp", "bmp"] * 3):
        paths.append(folder / ("more" if i > 8 else "") / f"{99 - i}.{kind}")
        Image.fromarray(IMAGES[i]).resize((64, 64), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def predicted(paths, output, **kwargs):
    return predict_files(a_run(), paths, output, **kwargs)


def test_predictions_are_in_the_order_of_the_files(digits, tmp_path):
    stream = io.StringIO()
    results = predict_files(a_run(batch_size=5), digits, tmp_path / "out", top=3, lines=stream)
    assert [r["file"] for r in results] == [str(p) for p in digits]
    right = [r["predictions"][0]["index"] == DIGITS.target[i] for i, r in enumerate(results)]
    assert sum(right) >= 10
    for path, result in zip(digits, results):
        (expected,) = jax.nn.softmax(logits_of(preprocess(path)[None].astype(np.float32)))
        found = [p["probability"] for p in result["predictions"]]
        np.testing.assert_allclose(found, np.sort(expected)[::-1][:3], atol=1e-5)
        assert [p["label"] for p in result["predictions"]] == [
            NAMES[p["index"]] for p in result["predictions"]
        ]
    written = (tmp_path / "out" / "predictions.jsonl").read_text()
    assert written == stream.getvalue()
    assert [json.loads(line) for line in written.splitlines()] == results
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [
        f"{99 - i}.png" for i in range(11, -1, -1)
    ]


@pytest.mark.parametrize("count", [1, 4, 8, 9])
def test_one_shape_only(digits, tmp_path, count):
    model = NearestCentre()
    results = predict_files(a_run(model, batch_size=4), digits[:count], tmp_path / "out")
    assert model.shapes == [((4, 8, 8, 1), jnp.float32)]  # compiled once
    assert len(results) == count


def test_arrays_are_answered_as_files_are(digits):
    run = a_run()
    found = list(predict(run, digits, top=2))
    arrays = [decode_image(path.read_bytes(), channels=1) for path in digits]
    assert [{"file": str(path), **one} for path, one in zip(digits, predict(run, arrays, top=2))] == found
    assert [*predict(run, arrays[0], top=2)] == [{"predictions": found[0]["predictions"]}]
    run.task = CausalLM()
    with pytest.raises(UserError, match="it learns to go on with texts"):
        next(predict(run, "a text"))


def test_folders_give_their_pictures_in_order(digits, tmp_path):
    folder = tmp_path / "digits"
    (folder / "notes.txt").write_text("not a picture")
    (folder / "._91.png").write_bytes(b"what macOS leaves behind")
    assert find_images([folder]) == sorted(digits)
    assert find_images([digits[5], folder]) == [digits[5], *(p for p in sorted(digits) if p != digits[5])]


def test_every_broken_file_is_named_before_any_work(digits, tmp_path):
    torn, text, missing = tmp_path / "torn.png", tmp_path / "text.png", tmp_path / "missing.png"
    torn.write_bytes(digits[0].read_bytes()[:40])
    text.write_text("hello")

    def never(pixels):
        raise AssertionError("predicted")

    with pytest.raises(UserError) as raised:
        predict_files(a_run(NearestCentre(never)), [digits[0], torn, text, missing], tmp_path / "out")
    assert raised.value.lines[0].startswith(
        "3 of 4 images cannot be read; fix them, or leave them out with `skip_broken`"
    )
    assert [line.split(": ")[0] for line in raised.value.lines[1:]] == [str(p) for p in (torn, text, missing)]
    assert raised.value.lines[3].endswith("missing.png: there is no such file")
    assert not (tmp_path / "out").exists()


def test_broken_files_can_be_skipped(digits, tmp_path, caplog):
    broken = tmp_path / "broken.png"
    broken.write_text("hello")
    results = predicted([digits[0], broken, digits[1]], tmp_path / "out", skip_broken=True)
    assert [r["file"] for r in results] == [str(digits[0]), str(digits[1])]
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        f"skipped {broken}: 5 bytes that are not an image; {', '.join(FORMATS)} are read"
    ]
    with pytest.raises(UserError, match="1 of 1 image cannot be read"):
        predicted([broken], tmp_path / "out", skip_broken=True)


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path):
    paths = [tmp_path / name for name in ("a/1.png", "b/1.png", "a/1-2.png", "b/1.jpg")]
    for i, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGES[i]).save(path)
    predicted(paths, tmp_path / "out")
    names = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert names == ["1-2-2.png", "1-2.png", "1-3.png", "1.png"]


def test_images_of_an_earlier_prediction_are_removed_and_nothing_else(digits, tmp_path):
    out = tmp_path / "out"
    predicted(digits[:3], out)
    Image.fromarray(IMAGES[0]).save(out / "mine.png")
    (out / "notes.txt").write_text("mine")
    (out / "broken.png").write_text("mine")
    os.mkfifo(out / "pipe.png")
    predicted(digits[2:4], out)
    mine = {"mine.png", "notes.txt", "broken.png", "pipe.png"}
    assert {path.name for path in out.iterdir()} == {"97.png", "96.png", "predictions.jsonl"} | mine
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == [str(path) for path in digits[2:4]]


class Ended(io.StringIO):
    """Takes three lines, looks at what is in a folder, and has the process end."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def write(self, line):
        super().write(line)
        if self.getvalue().count("\n") == 3:
            self.found = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
            raise KeyboardInterrupt


def test_predictions_are_there_together_or_not_at_all(digits, tmp_path):
    out = tmp_path / "new" / "out"
    ended = Ended(out)
    with pytest.raises(KeyboardInterrupt):
        predicted(digits[:5], out, lines=ended)
    assert ended.found == set()
    assert not (tmp_path / "new").exists()
    predicted(digits[5:7], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(before) == 3
    ended = Ended(out)
    with pytest.raises(KeyboardInterrupt):
        predicted(digits[:5], out, lines=ended)
    assert ended.found == set(before)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_originals_are_never_overwritten(digits, tmp_path):
    before = digits[0].read_bytes()
    with pytest.raises(UserError, match=r"99\.png: would be overwritten; choose another output folder"):
        predicted([digits[0]], digits[0].parent)
    assert digits[0].read_bytes() == before


def test_images_that_are_no_drawings_of_ours_are_never_overwritten(digits, tmp_path):
    own = tmp_path / "out" / digits[0].name
    own.parent.mkdir()
    own.write_bytes(digits[0].read_bytes())
    with pytest.raises(UserError, match=r"99\.png: would be overwritten; choose another output folder"):
        predicted([digits[0]], own.parent)
    assert own.read_bytes() == digits[0].read_bytes()
    own.unlink()
    predicted([digits[0]], own.parent)
    predicted([digits[0]], own.parent)  # its own drawing may go


def test_mistakes_are_said_in_a_line(digits, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match="empty: there are no images; expected files, or folders of AVIF, BMP"
    ):
        predicted([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(UserError, match="file: cannot write there"):
        predicted([digits[0]], tmp_path / "file")
    with pytest.raises(UserError, match="top=0: expected at least 1"):
        predicted([digits[0]], tmp_path / "out", top=0)
    with pytest.raises(UserError, match=r"top=2\.5: expected at least 1, an int"):
        predicted([digits[0]], tmp_path / "out", top=2.5)
    with pytest.raises(UserError, match="'': is no name of a file or a folder"):
        predicted([""], tmp_path / "out")
    broken = a_run(NearestCentre(lambda pixels: jnp.full((len(pixels), 10), jnp.nan)))
    with pytest.raises(UserError, match=r"99\.png: the model's predictions are not finite"):
        predict_files(broken, [digits[0]], tmp_path / "out")


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [
        ((), "out", "no images were named"),
        (("",), "out", "'': is no name of a file"),
        (("empty",), "out", "empty: there are no images"),
        (("file",), "file", "file: cannot write there"),
    ],
)
def test_what_cannot_be_predicted_is_refused_before_the_run_is_loaded(
    inputs, output, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    verb = Predict(run=tmp_path / "no run", inputs=inputs)
    with pytest.raises(UserError, match=said):
        verb.predict_images(Path(output))


def test_further_images_overwrite_nothing(tmp_path):
    written = {"map": "-classes"}
    files = [tmp_path / "in" / name for name in ("a.png", "b.png")]
    names = [{k: p.name for k, p in place.items()} for place in place_images(files, tmp_path, written)]
    assert names == [{"": f"{name}.png", "map": f"{name}-classes.png"} for name in "ab"]
    with pytest.raises(UserError, match=r"a-classes.png: would be overwritten; choose another output folder"):
        place_images([tmp_path / "in" / "a.png", tmp_path / "in" / "a-classes.png"], tmp_path, written)
    with pytest.raises(UserError, match=r"a-classes.png: would be overwritten"):
        place_images([tmp_path / "in" / "a.png", tmp_path / "a-classes.png"], tmp_path, written)


def test_classes_without_a_name_are_numbers(digits, tmp_path):
    (result,) = predict_files(a_run(names=["zero"]), digits[:1], tmp_path / "out", top=20)
    assert len(result["predictions"]) == 10
    assert {p["label"] for p in result["predictions"]} == {"zero", *map(str, range(1, 10))}


@pytest.mark.parametrize("shape", [(8, 8, 3), (30, 400, 3), (1200, 900, 3), (1, 1, 3)])
def test_annotated_pictures_keep_the_picture_and_fit(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    shown = np.asarray(annotate(image, [("cat", 0.75), ("dog", 0.0)]))
    assert max(shown.shape[:2]) <= LARGEST + 200
    assert shown.shape[1] >= SMALLEST
    bar = (shown == np.array([int(BAR[i : i + 2], 16) for i in (1, 3, 5)])).all(-1)
    widths = bar.sum(1)[-80:]
    track = (shown == np.array([0xE6] * 3)).all(-1).sum(1)[-80:]
    assert widths.max() / (widths + track).max() == pytest.approx(0.75, abs=0.02)
    if max(shape) <= LARGEST:
        factor = max(1, SMALLEST // max(shape))
        enlarged = image.repeat(factor, 0).repeat(factor, 1)
        left = (shown.shape[1] - enlarged.shape[1]) // 2
        found = shown[10 : 10 + enlarged.shape[0], left : left + enlarged.shape[1]]
        np.testing.assert_array_equal(found, enlarged)


def test_long_labels_are_cut():
    assert shorten("cat", 100) == "cat"
    cut = shorten("a very long name of a class indeed", 100)
    assert cut.endswith("…")
    assert cut.startswith("a very")


@pytest.mark.parametrize("given", [[3], 3, [None], b"bytes"])
def test_what_is_neither_a_file_nor_an_image_is_named(given):
    run = a_run()
    run.experiment = SimpleNamespace(eval_data=SimpleNamespace(element_spec={"image": ((8, 8, 1), np.uint8)}))
    run.example = partial(LoadedRun.example, run)
    several = isinstance(given, (list, bytes))
    place, name = "image 1" if several else "the image", type(given[0] if several else given).__name__
    with pytest.raises(
        UserError, match=rf"^{place}: is {name}; expected an image file, or uint8 \[H, W, 1\]"
    ):
        next(predict(run, given))
    with pytest.raises(UserError, match=r"the image: is float32 of the shape \(8, 8, 1\)"):
        next(predict(run, np.zeros((8, 8, 1), np.float32)))


@pytest.mark.parametrize(
    ("given", "form", "message"),
    [
        ([3], "text", "text 1: expected a text, was given int"),
        (3, "words", "text 1: expected a text or a list of words, was given int"),
        (["a", ["b"]], "text", "text 2: expected a text, was given list"),
        (
            [3],
            "texts",
            "text 1: expected two texts with one tab between them, or a tuple of them, was given int",
        ),
        ([("what", None)], "question", "question 1: expected .question, context., was given tuple"),
        ([("a", "b", "c")], "texts", "text 1: has 3 texts"),
        ([], "text", "there is no text: give texts"),
    ],
)
def test_what_is_no_text_is_named(given, form, message):
    with pytest.raises(UserError, match=message):
        as_given(given, form)


@pytest.mark.parametrize(("name", "told"), [("reviews.csv", True), ("reviews.txt", False)])
def test_a_table_is_told_not_to_be_read_as_one(name, told, tmp_path, caplog):
    (tmp_path / name).write_text("text,label\nfine,good\n")
    assert read_given("text", [], [tmp_path / name]).texts == ["text,label", "fine,good"]
    assert ("reviews.csv: no columns are read; each line as it is" in caplog.text) == told
