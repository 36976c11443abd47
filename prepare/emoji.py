"""Emoji pictures with their names in five languages, from two packages of npm, as image-text files.

    npm pack emoji-datasource-twitter@16.0.0 cldr-annotations-full@48.2.0
    python prepare/emoji.py emoji-datasource-twitter-16.0.0.tgz cldr-annotations-full-48.2.0.tgz emoji
    jaxformer data import image-text emoji/*.jsonl --name emoji

The pictures are Twitter's (CC-BY 4.0), 64 x 64 pixels, here on white; names are the Unicode Common Locale Data
Repository's ("tts", what a screen reader says). Flags are left out, whose names are those of countries, and so are
tones of skin: 1,571 pictures.
"""

import argparse
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from image_text import write
from PIL import Image

LANGUAGES = ("de", "fr", "es", "it")  # beside English, which is the column "caption"
LEFT_OUT = ("Flags", "Component")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, help="emoji-datasource-twitter-*.tgz")
    parser.add_argument("names", type=Path, help="cldr-annotations-full-*.tgz")
    parser.add_argument("out", type=Path, help="a new folder")
    arguments = parser.parse_args()
    with tarfile.open(arguments.pictures) as pictures, tarfile.open(arguments.names) as names:
        write(arguments.out, named(pictures, names))


def named(
    pictures: tarfile.TarFile, names: tarfile.TarFile
) -> Iterator[tuple[str, Image.Image, dict[str, str]]]:
    """Each emoji that has a picture and a name in all languages: file's name, picture, names by column."""
    tables = {"caption": table_of(names, "en")}
    tables |= {f"caption_{language}": table_of(names, language) for language in LANGUAGES}
    for emoji in json.loads(member(pictures, "package/emoji.json")):
        text = "".join(chr(int(code, 16)) for code in emoji["unified"].split("-"))
        captions = {column: caption for column, table in tables.items() if (caption := spoken(table, text))}
        if emoji["category"] in LEFT_OUT or not emoji["has_img_twitter"] or len(captions) < len(tables):
            continue
        file = member(pictures, f"package/img/twitter/64/{emoji['image']}")
        yield Path(emoji["image"]).stem, Image.open(io.BytesIO(file)), captions


def table_of(names: tarfile.TarFile, language: str) -> Mapping[str, Any]:
    """The annotations of a language, by emoji."""
    (table,) = json.loads(member(names, f"package/annotations/{language}/annotations.json")).values()
    return table["annotations"]


def spoken(table: Mapping[str, Any], text: str) -> str | None:
    """What a screen reader says; tables leave the selector of pictures (U+FE0F) out."""
    entry = table.get(text) or table.get(text.replace("\ufe0f", ""))
    return entry["tts"][0] if entry else None


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """A file of an archive, which is read in place: nothing is unpacked."""
    file = archive.extractfile(name)
    if file is None:
        raise SystemExit(f"{name}: is no file in {archive.name}")
    return file.read()


if __name__ == "__main__":
    main()
