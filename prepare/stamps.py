"""The stamps of Tux Paint with their captions in five languages, from Debian's package, as image-text files.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb package
    python prepare/stamps.py package/usr/share/tuxpaint/stamps stamps
    jaxformer data import image-text stamps/*.jsonl --name stamps

Pictures of animals, food, vehicles, coins, letters and more (GPL-2), of many sizes, here on white and at most 128
pixels high and wide. Those that are drawings of lines (SVG) are left out: 784 pictures.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from image_text import write
from PIL import Image

LANGUAGES = ("de", "fr", "es", "it")  # beside English, which is the first line of a file of captions
LARGEST = 128  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stamps", type=Path, help="the package's folder usr/share/tuxpaint/stamps")
    parser.add_argument("out", type=Path, help="a new folder")
    arguments = parser.parse_args()
    write(arguments.out, captioned(arguments.stamps))


def captioned(folder: Path) -> Iterator[tuple[str, Image.Image, dict[str, str]]]:
    """Each stamp that has a PNG: file's name, picture, captions by column."""
    for file in sorted(folder.rglob("*.txt")):
        if not (image := file.with_suffix(".png")).exists():
            continue
        english, *others = file.read_text(encoding="utf-8").splitlines()
        told = dict(line.split("=", 1) for line in others if "=" in line)
        captions = {"caption": english.strip()}
        captions |= {f"caption_{name}": told.get(f"{name}.utf8", english).strip() for name in LANGUAGES}
        picture = Image.open(image).convert("RGBA")
        picture.thumbnail((LARGEST, LARGEST))
        yield "-".join(file.relative_to(folder).with_suffix("").parts), picture, captions


if __name__ == "__main__":
    main()
