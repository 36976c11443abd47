"""The scripts in prepare/: what they make of a package's files is imported as it is."""

import io
import json
import subprocess
import sys
import tarfile

import numpy as np
from helpers.documents import ROOT
from helpers.importing_cases import bring, examples
from PIL import Image

NAMES = {"en": "{} face", "de": "{} Gesicht", "fr": "visage {}", "es": "cara {}", "it": "faccia {}"}


def png(value, mode="RGBA"):
    """Transparent on the left, of one grey on the right."""
    pixels = np.full((8, 8, 4), value, np.uint8)
    pixels[:, :4, 3], pixels[:, 4:, 3] = 0, 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format="PNG")
    return buffer.getvalue()


def archive(path, files):
    with tarfile.open(path, "w:gz") as made:
        for name, content in files.items():
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


def prepare(script, *arguments):
    command = [sys.executable, str(ROOT / "prepare" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def imported(folder, tmp_path):
    made = bring(sorted(folder.glob("*.jsonl")), tmp_path, "image-text")
    return {row["path"]: row for split in made.splits for row in examples(made, split)}


def test_emoji_have_their_names_in_all_languages_and_each_picture_comes_once(tmp_path):
    emoji = [
        {"unified": "1F600", "image": "1f600.png", "category": "Smileys & Emotion", "has_img_twitter": True},
        {
            "unified": "2639-FE0F",
            "image": "2639.png",
            "category": "Smileys & Emotion",
            "has_img_twitter": True,
        },
        {"unified": "1F61B", "image": "same.png", "category": "Smileys & Emotion", "has_img_twitter": True},
        {"unified": "1F1E9", "image": "flag.png", "category": "Flags", "has_img_twitter": True},
        {
            "unified": "1F602",
            "image": "nameless.png",
            "category": "Smileys & Emotion",
            "has_img_twitter": True,
        },
    ]
    values = {"1f600": 10, "2639": 90, "same": 10, "flag": 130, "nameless": 170}
    pictures = {f"img/twitter/64/{name}.png": png(value) for name, value in values.items()}
    said = {"\U0001f600": "one", "\u2639": "two", "\U0001f61b": "three", "\U0001f1e9": "four"}
    tables = {
        f"annotations/{language}/annotations.json": {
            "annotations": {
                "annotations": {text: {"tts": [form.format(name)]} for text, name in said.items()}
            }
        }
        for language, form in NAMES.items()
    }
    first = archive(tmp_path / "pictures.tgz", {"emoji.json": emoji, **pictures})
    prepare("emoji.py", first, archive(tmp_path / "names.tgz", tables), tmp_path / "out")
    found = imported(tmp_path / "out", tmp_path)
    assert found.keys() == {"images/1f600.png", "images/2639.png"}
    row = found["images/2639.png"]
    assert (row["caption"], row["caption_de"], row["caption_it"]) == (
        ["two face"],
        ["two Gesicht"],
        ["faccia two"],
    )
    np.testing.assert_array_equal(np.asarray(row["image"])[0, :, 0], [255] * 4 + [90] * 4)


def test_stamps_have_the_captions_of_their_files(tmp_path):
    folder = tmp_path / "stamps" / "animals"
    folder.mkdir(parents=True)
    for name, value in {"frog": 20, "bird": 70}.items():
        (folder / f"{name}.png").write_bytes(png(value))
        lines = [f"A {name}.", f"de.utf8=Ein {name}.", "xx.utf8=?"]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "drawing.txt").write_text("A drawing of lines.", encoding="utf-8")
    assert "pictures" in prepare("stamps.py", tmp_path / "stamps", tmp_path / "out")
    found = imported(tmp_path / "out", tmp_path)
    assert found.keys() == {"images/animals-frog.png", "images/animals-bird.png"}
    row = found["images/animals-frog.png"]
    assert (row["caption"], row["caption_de"], row["caption_fr"]) == (["A frog."], ["Ein frog."], ["A frog."])
