"""A folder of pictures with captions, as `jaxformer data import image-text` reads it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

# Of a hundred pictures.
VALIDATION, TEST = 10, 15


def write(out: Path, pairs: Iterable[tuple[str, Image.Image, Mapping[str, str]]]) -> None:
    """Writes pictures and, a file for each split, lines of their captions; says how many. The same one comes once.

    Args:
      out: a new folder.
      pairs: a picture's name, the picture, and its captions by column; "caption" is one of these.
    """
    (out / "images").mkdir(parents=True)
    there: set[bytes] = set()  # pictures
    lines: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for name, picture, captions in pairs:
        picture, path = on_white(picture), f"images/{name}.png"
        if picture.tobytes() in there:
            continue
        there.add(picture.tobytes())
        picture.save(out / path)
        lines[split_of(captions["caption"])].append(
            json.dumps({"path": path, **captions}, ensure_ascii=False)
        )
    for split, written in ((split, written) for split, written in lines.items() if written):
        (out / f"{split}.jsonl").write_text("\n".join(written) + "\n", encoding="utf-8")
        print(f"{split}: {len(written):,} pictures")


def on_white(picture: Image.Image) -> Image.Image:
    """A picture with transparent parts, on white."""
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def split_of(caption: str) -> str:
    """The split of a picture, a function of its caption alone: pictures with equal captions are in one split."""
    percent = int.from_bytes(hashlib.sha256(caption.encode()).digest()[:4], "big") % 100
    return "validation" if percent < VALIDATION else "test" if percent < VALIDATION + TEST else "train"
