"""Examples in a run's folder, for its report: pictures, predictions, and where the model looked."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxformer.observe.attention_maps import (
    Query,
    attention_grid,
    attention_rollout,
    head_pictures,
    overlay,
    square_grid,
)

SAMPLES = "samples"
SHOWN_SIZE = 160  # pixels of the longer side of a picture in samples/
TOP = 3  # classes listed for an example


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """The examples of which the model is surest, and wrong.

    Args:
      labels: int [N], true classes.
      probabilities: [N, K].
      count: how many at most.

    Returns:
      int [M], M <= count: positions, the highest confidence first; empty if there are no mistakes.
    """
    predicted = probabilities.argmax(axis=-1)
    confidence = probabilities.max(axis=-1)
    wrong = np.flatnonzero(predicted != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:count]


def write_samples(
    run_dir: Path,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str] | None = None,
    attention: np.ndarray | None = None,
    *,
    kind: str,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int = 0,
    query: Query | None = None,
) -> Path:
    """Writes RUN/samples/KIND/: PNG files and samples.json; in the place of an earlier one, all at once.

    Args:
      run_dir: the run's folder.
      images: uint8 [N, H, W, C], C 1 or 3.
      labels: int [N], true classes.
      probabilities: [N, K].
      class_names: names of the first classes; the others are called by their numbers.
      attention: softmax weights [N, L, H, T, T]; then rollouts and heads are drawn, too.
      kind: a name for these examples, "samples" or "mistakes", and their folder's.
      grid: (h, w) of the patches; None: the largest square of T, and the rest is prefix tokens.
      prefix_tokens: class and register tokens in front of the patches, where `grid` is given.
      query: whose attention is shown; None: the class token's if there is a prefix, else the patches' mean.

    Returns:
      The folder.
    """
    parent = Path(run_dir) / SAMPLES
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{kind}."))
    try:
        if attention is not None and grid is None:
            grid, prefix_tokens = square_grid(attention.shape[-1])
        shown = []
        for index, image in enumerate(images):
            entry = describe(int(labels[index]), probabilities[index], class_names)
            entry["image"] = save_picture(temporary / f"{index:03d}.png", visible(image))
            if attention is not None and grid is not None:
                whose: Query = query or ("class_token" if prefix_tokens else "mean")
                rollout = attention_grid(attention_rollout(attention[index]), grid, prefix_tokens, whose)
                heads = attention_grid(attention[index], grid, prefix_tokens, whose)  # [L, H, h, w]
                name = temporary / f"{index:03d}-rollout.png"
                entry["rollout"] = save_picture(name, overlay(visible(image), rollout))
                entry["heads"] = save_picture(
                    temporary / f"{index:03d}-heads.png", head_pictures(heads, heads_cell(*heads.shape[:2]))
                )
            shown.append(entry)
        content: dict[str, Any] = {"kind": kind, "samples": shown}
        if attention is not None:
            content |= {"layers": attention.shape[1], "heads": attention.shape[2]}
        (temporary / "samples.json").write_text(json.dumps(content, indent=2) + "\n")
        temporary.chmod(0o755)
        replace_folder(temporary, parent / kind)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return parent / kind


def heads_cell(layers: int, heads: int) -> int:
    """Pixels for one head's map, so that all of them fit a picture of about 480."""
    return max(16, min(48, 480 // max(layers, heads)))


def describe(label: int, probabilities: np.ndarray, class_names: Sequence[str] | None) -> dict[str, Any]:
    """An example's true class, and the likeliest ones with their probabilities."""

    def name(index: int) -> str:
        return str(class_names[index]) if class_names and index < len(class_names) else str(index)

    order = np.argsort(-probabilities, kind="stable")[:TOP]
    top = [{"class": name(int(k)), "probability": round(float(probabilities[k]), 6)} for k in order]
    return {"label": name(label), "correct": bool(order[0] == label), "top": top}


def visible(image: np.ndarray) -> np.ndarray:
    """An image at a size that can be seen: whole multiples of tiny ones, pixel by pixel; larger ones shrunk.

    Args:
      image: uint8 [H, W, C].

    Returns:
      uint8 [H', W', C], the longer side about SHOWN_SIZE.
    """
    import cv2

    height, width, channels = image.shape
    longer = max(height, width)
    if longer < SHOWN_SIZE:
        return image.repeat(SHOWN_SIZE // longer, axis=0).repeat(SHOWN_SIZE // longer, axis=1)
    size = max(1, round(width * SHOWN_SIZE / longer)), max(1, round(height * SHOWN_SIZE / longer))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)


def save_picture(path: Path, picture: np.ndarray) -> str:
    """Writes a PNG of uint8 [H, W, C] with C 1 (grey), 3 (RGB) or 4 (RGBA); returns the file's name."""
    from PIL import Image

    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(path)
    return path.name


def replace_folder(new: Path, target: Path) -> None:
    """Renames `new` to `target`, in the place of a folder that is there already."""
    old = new.with_name(new.name + ".old")
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def read_samples(run_dir: Path) -> list[dict[str, Any]]:
    """What a run's samples.json files hold, each with its "folder"; one that cannot be read is left out."""
    found = []
    for path in sorted((Path(run_dir) / SAMPLES).glob("[!.]*/samples.json")):
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(path.read_text()) | {"folder": path.parent})
    return found
