"""Images of every format and mode, turned, deep, flat, giant, and files that are none."""

import os
import socket

import cv2
import numpy as np
import pytest
from helpers.image_files import a_file, encoded, of_mode, pillow, png_that_claims
from helpers.importing_cases import bring, refusal, write
from PIL import Image

from jaxformer.data import DataConfig
from jaxformer.data.base import open_source
from jaxformer.data.decoding import FORMATS, decode_image
from jaxformer.data.kinds.detection import Detection
from jaxformer.data.kinds.images import Images
from jaxformer.data.kinds.segmentation import Segmentation
from jaxformer.inference.inputs import find_images
from jaxformer.reading import IMAGE_EXTENSIONS

TAGS = [*range(10), 65535]
ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "MPO": "jpg"}
X0, Y0, X1, Y1 = BOX = (4, 6, 14, 26)  # in pixels of the upright image


def read_back(folder, examples, split="train"):
    """The examples of the dataset "mine" as training decodes them."""
    config = DataConfig(name="mine", data_dir=str(folder / "tfds"), examples=examples)
    source = open_source(config, split)
    return [
        (source.records.text(r, "path", 0), source.decode(r, 0))
        for r in source.records.read(range(len(source)))
    ]


def turned(folder, format):
    """Files with every orientation tag, and their upright pixels as Pillow has them."""
    files = {}
    for tag in TAGS:
        exif = Image.Exif()
        exif[0x0112] = tag
        content = a_file(format, "RGB", exif=exif)
        files[f"{tag}.{ENDINGS[format]}"] = pillow(content, 3)
        write(folder / f"{tag}.{ENDINGS[format]}", content)
    return files


def as_coco(folder, files, stated):
    images, objects = [], []
    for number, (name, pixels) in enumerate(files.items()):
        size = f', "height": {pixels.shape[0]}, "width": {pixels.shape[1]}' if stated else ""
        images.append(f'{{"id": {number}, "file_name": "{name}"{size}}}')
        box = f"[{X0}, {Y0}, {X1 - X0}, {Y1 - Y0}]"
        objects.append(
            f'{{"id": {number}, "image_id": {number}, "category_id": {number % 2}, "bbox": {box}}}'
        )
    names = '{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}'
    lists = zip(("images", "annotations", "categories"), (", ".join(images), ", ".join(objects), names))
    write(folder / "a.json", "{" + ", ".join(f'"{key}": [{content}]' for key, content in lists) + "}")


def as_voc(folder, files, stated):
    for name, pixels in files.items():
        size = f"<size><width>{pixels.shape[1]}</width><height>{pixels.shape[0]}</height></size>" * stated
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (X0 + 1, Y0 + 1, X1, Y1))  # from 1
        box = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
        label = "cat" if int(name.split(".")[0]) % 2 else "dog"
        content = f"<object><name>{label}</name><bndbox>{box}</bndbox></object>"
        head = f"<annotation><filename>{name}</filename>{size}"
        write(folder / f"{name.split('.')[0]}.xml", f"{head}{content}</annotation>")


def as_yolo(folder, files, stated):
    for name, pixels in files.items():
        height, width = pixels.shape[:2]
        center = (X0 + X1) / 2 / width, (Y0 + Y1) / 2 / height, (X1 - X0) / width, (Y1 - Y0) / height
        line = f"{int(name.split('.')[0]) % 2} " + " ".join(map(str, center))
        write(folder / f"{name.split('.')[0]}.txt", line + "\n")
    write(folder / "classes.txt", "dog\ncat\n")


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize(
    ("kind", "annotate", "stated"),
    [("coco", as_coco, False), ("coco", as_coco, True), ("voc", as_voc, True), ("yolo", as_yolo, False)],
)
def test_boxes_of_turned_images_are_shares_of_what_is_stored(format, kind, annotate, stated, tmp_path):
    files = turned(tmp_path / "in", format)
    annotate(tmp_path / "in", files, stated)
    assert not bring(tmp_path / "in", tmp_path, kind, test_share=0).broken
    found = dict(read_back(tmp_path, Detection(size=64)))
    assert found.keys() == files.keys()
    for name, example in found.items():
        np.testing.assert_array_equal(example["image"], files[name], err_msg=name)
        assert example["original_size"].tolist() == list(files[name].shape[:2])
        np.testing.assert_allclose(example["boxes"], [BOX], atol=1e-4)


@pytest.mark.parametrize("format", ENDINGS)
def test_masks_fit_turned_images(format, tmp_path):
    files = turned(tmp_path / "in" / "images", format)
    masks = {}
    for number, (name, pixels) in enumerate(files.items()):
        mask = np.random.default_rng(number).integers(0, 3, pixels.shape[:2]).astype(np.uint8)
        masks[name] = mask
        write(tmp_path / "in" / "masks" / f"{name.split('.')[0]}.png", encoded(Image.fromarray(mask), "PNG"))
    write(tmp_path / "in" / "classes.txt", "sky\nroad\ncar\n")
    assert not bring(tmp_path / "in", tmp_path, "segmentation", test_share=0).broken
    for name, example in read_back(tmp_path, Segmentation(size=64)):
        np.testing.assert_array_equal(example["image"], files[name.split("/")[-1]])
        np.testing.assert_array_equal(example["segmentation"], masks[name.split("/")[-1]])


def test_a_mask_is_turned_as_its_own_tag_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # by 180 degrees: the size does not tell
    ids = np.arange(2400).reshape(40, 60) // 1200
    for number in range(2):
        write(
            tmp_path / "in" / "images" / f"{number}.png", encoded(of_mode("RGB").rotate(180 * number), "PNG")
        )
        mask = encoded(Image.fromarray(ids.astype(np.uint8)), "PNG", exif=exif)
        write(tmp_path / "in" / "masks" / f"{number}.png", mask)
    write(tmp_path / "in" / "classes.txt", "sky\nroad\n")
    bring(tmp_path / "in", tmp_path, "segmentation", test_share=0)
    for _, example in read_back(tmp_path, Segmentation(size=64)):
        np.testing.assert_array_equal(example["segmentation"], ids[::-1])


def test_import_training_and_predict_have_the_same_pixels(tmp_path):
    listed = [(format, mode) for format, modes in FORMATS.items() for mode in modes.split()]
    contents = {f"{n}.png": a_file(*one) for n, one in enumerate(listed)}  # extensions that lie
    for name, content in contents.items():
        write(tmp_path / "in" / "ab"[len(name) % 2] / name, content)
    imported = bring(tmp_path / "in", tmp_path, "images", test_share=0)
    assert imported.splits == {"train": len(listed)}
    for name, example in read_back(tmp_path, Images()):
        content = contents[name.split("/")[-1]]
        np.testing.assert_array_equal(example["image"], pillow(content, 3), err_msg=name)
        np.testing.assert_array_equal(example["image"], decode_image(content, 3, upright=True))
    deep = sum(mode in ("I", "I;16", "I;16B") for _, mode in listed)
    clear = sum(mode in ("LA", "RGBA") for _, mode in listed)
    assert sorted(imported.notes[1:]) == [
        f"not stored: the lower 8 of 16 bits of {deep} images",
        f"not stored: the transparency of {clear} images",
    ]


def folders(root, **contents):
    """A folder with the classes a and b of three images each, and further files."""
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
        write(root / "ab"[number % 2] / f"{number}.png", encoded(Image.fromarray(pixels), "PNG"))
    for name, content in contents.items():
        write(root / "a" / name.replace("_", "."), content)
    return root


def test_what_is_not_stored_is_said(tmp_path):
    animated = encoded(of_mode("P"), "GIF", save_all=True, append_images=[of_mode("P").rotate(180)])
    folders(tmp_path / "in", x_gif=animated, y_jpg=a_file("MPO", "RGB"), z_png=a_file("PNG", "I;16"))
    assert bring(tmp_path / "in", tmp_path, "images").notes[1:] == [
        "not stored: all frames or pages but the first of 1 image",
        "not stored: the lower 8 of 16 bits of 1 image",
    ]


def flat(value: int) -> bytes:
    return encoded(Image.new("RGB", (4, 5 + value), (value, 0, 9)), "PNG")


def test_a_class_of_flat_images_is_remarked_upon(tmp_path):
    for number in range(3):
        write(tmp_path / "in" / "dark" / f"{number}.png", flat(number))
    note = "every image of the class dark is of one colour; look at its files"
    assert bring(folders(tmp_path / "in"), tmp_path, "images").notes[1:] == [note]
    write(tmp_path / "in" / "dark" / "3.png", encoded(of_mode("RGB"), "PNG"))
    assert bring(tmp_path / "in", tmp_path, "images", name="again").notes[1:] == []


def test_a_dataset_of_flat_images_is_remarked_upon(tmp_path):
    for number in range(10):
        write(tmp_path / "in" / "ab"[number % 2] / f"{number}.png", flat(number))
    note = "every image is of one colour; look whether the files are what they should be"
    assert bring(tmp_path / "in", tmp_path, "images").notes[1:] == [note]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_integers_and_floats_of_32_bits_are_refused_by_name(mode, tmp_path):
    message = refusal(folders(tmp_path / "in", x_tif=encoded(of_mode(mode), "TIFF")), tmp_path, "images")
    assert (
        f"x.tif: not a readable image (a TIFF of the mode {mode}; save it as grey or RGB of 8 bits)"
        in message
    )


def test_giant_images_are_refused_by_name(tmp_path):
    root = folders(
        tmp_path / "in", x_png=png_that_claims(60000, 60000), y_ppm=b"P6\n999999 999999\n255\n" + bytes(9)
    )
    assert "x.png: not a readable image (Image size (3600000000 pixels)" in refusal(root, tmp_path, "images")
    broken = bring(root, tmp_path, "images", skip_broken=True).broken
    assert sorted(path.name for path, _ in broken) == ["x.png", "y.ppm"]


def test_a_very_wide_image_is_one_as_others_are(tmp_path):
    wide = Image.fromarray(np.arange(3_000_000, dtype=np.uint32).view(np.uint8)[:3_000_000].reshape(1, -1, 3))
    root = folders(tmp_path / "in", x_png=encoded(wide, "PNG"))
    bring(root, tmp_path, "images", test_share=0)
    found = dict(read_back(tmp_path, Images()))
    np.testing.assert_array_equal(found["a/x.png"]["image"], np.asarray(wide))


def not_regular(folder):
    """A pipe, a device, a socket, links to them, and a link to itself, all named as images."""
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "null.png").symlink_to("/dev/null")
    (folder / "to_pipe.png").symlink_to(folder / "pipe.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(folder)  # names of sockets are short
        one.bind("socket.png")
    return ["circle.png", "null.png", "pipe.png", "socket.png", "to_pipe.png", "zero.png"]


def test_only_regular_files_are_opened_as_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = folders(tmp_path / "in")
    names = not_regular(root / "a")
    monkeypatch.chdir(tmp_path)
    broken = bring(root, tmp_path, "images", skip_broken=True).broken
    assert sorted(path.name for path, _ in broken) == names
    for path, reason in broken:
        assert ("symbolic links" if path.name == "circle.png" else "a pipe, a device or a socket") in reason


KINDS = {
    "images": "labels.csv",
    "detection": "a.json",
    "coco": "a.json",
    "yolo": "data.yaml",
    "text": "a.txt",
    "csv": "a.csv",
    "jsonl": "a.jsonl",
    "pairs": "a.tsv",
    "conll": "a.conll",
    "squad": "a.json",
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read_as_text(kind, tmp_path):
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / KINDS[kind])
    assert KINDS[kind] in refusal(tmp_path / "in" / KINDS[kind], tmp_path, kind)
    assert refusal(tmp_path / "in", tmp_path, kind)


def test_a_pipe_in_the_place_of_a_mask_or_an_annotation(tmp_path):
    write(tmp_path / "in" / "images" / "0.png", encoded(of_mode("RGB"), "PNG"))
    (tmp_path / "in" / "masks").mkdir()
    os.mkfifo(tmp_path / "in" / "masks" / "0.png")
    write(tmp_path / "in" / "classes.txt", "sky\nroad\n")
    assert "masks/0.png: not a readable mask" in refusal(tmp_path / "in", tmp_path, "segmentation")
    os.mkfifo(tmp_path / "in" / "images" / "0.xml")
    assert "a pipe, a device or a socket" in refusal(tmp_path / "in" / "images", tmp_path, "voc")


def test_every_format_that_is_read_has_its_extensions():
    of_pillow = {end for end, name in Image.registered_extensions().items() if name in FORMATS}
    assert of_pillow - {".pfm", ".dib"} <= IMAGE_EXTENSIONS  # of 32 bits a number, and of Windows' clipboard
    assert all(Image.registered_extensions()[end] in FORMATS for end in IMAGE_EXTENSIONS - {".heic", ".heif"})


def test_rarer_formats_are_images_by_their_names(tmp_path):
    files = {
        f"x.{end}": a_file(name, "RGB")
        for end, name in (("avif", "AVIF"), ("JP2", "JPEG2000"), ("mpo", "MPO"))
    }
    for name, content in files.items():
        write(tmp_path / "in" / "a" / name, content)
    folders(tmp_path / "in")
    assert bring(tmp_path / "in", tmp_path, "images", test_share=0).splits == {"train": 9}
    assert len(find_images([tmp_path / "in"])) == 9


def test_heic_is_refused_with_a_remedy(tmp_path):
    folders(tmp_path / "in", x_heic=b"\0\0\0\x24ftypheic" + bytes(99))
    said = refusal(tmp_path / "in", tmp_path, "images")
    assert "x.heic: not a readable image (HEIC, which is not read; save it as JPEG or PNG" in said


def palette_and_alpha():
    image = of_mode("P").convert("PA")
    image.putalpha(of_mode("L"))
    return encoded(image, "TIFF")


def deep_rgb(format):
    return cv2.imencode(f".{format}", np.random.default_rng(0).integers(0, 65536, (4, 5, 3), np.uint16))[
        1
    ].tobytes()


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        (deep_rgb("png"), "the lower 8 of 16 bits"),
        (deep_rgb("ppm"), "the lower 8 of 16 bits"),
        (a_file("PNG", "RGBA"), "the transparency"),
        (a_file("PNG", "LA"), "the transparency"),
        (palette_and_alpha(), "the transparency"),
        (encoded(of_mode("P"), "PNG", transparency=3), "the transparency"),
        (encoded(of_mode("L"), "PNG", transparency=7), "the transparency"),
        (encoded(of_mode("RGB"), "PNG", transparency=of_mode("RGB").getpixel((0, 0))), "the transparency"),
        (encoded(of_mode("RGB").convert("RGBA"), "PNG"), None),  # no pixel is transparent
    ],
)
def test_transparency_and_16_bits_of_colour_are_said(tmp_path, content, lost):
    notes = bring(folders(tmp_path / "in", x_png=content), tmp_path, "images", test_share=0).notes[1:]
    assert notes == [f"not stored: {lost} of 1 image"] * bool(lost)
