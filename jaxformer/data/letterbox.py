"""Letterboxing: images of any size in a frame, resized to fit with their aspect ratio, with zeros below and right."""

import numpy as np

from jaxformer.data.transforms import Example, resized


def letterbox(example: Example, size: tuple[int, int], enlarge: bool = True) -> Example:
    """Resizes an example to fit into a frame, and pads it.

    Args:
      example: with `image` uint8 [h, w, C] and what goes with it, see `geometry.py`.
      size: height and width of the frame.
      enlarge: whether a image that is smaller than the frame is enlarged to fill it.

    Returns:
      The example with `image` uint8 [H, W, C], `extent` int32 [2], height and width of the image in it, and, if
      there was a mask, `segmentation` int32 [H, W], -1 on the padding. Boxes are in pixels of the frame.
    """
    height, width = example["image"].shape[:2]
    scale = min(size[0] / height, size[1] / width)
    if scale < 1 or enlarge:
        rows, columns = (max(1, min(s, round(side * scale))) for s, side in zip(size, (height, width)))
        example = resized(example, rows, columns)
    return example | padded(example, size)


def padded(example: Example, size: tuple[int, int]) -> Example:
    """`image`, `segmentation` and `extent` of an example that fits into a frame of `size`."""
    rows, columns, channels = example["image"].shape
    image = np.zeros((*size, channels), np.uint8)
    image[:rows, :columns] = example["image"]
    made = {"image": image, "extent": np.array([rows, columns], np.int32)}
    if "segmentation" in example:
        mask = np.full(size, -1, np.int32)
        mask[:rows, :columns] = example["segmentation"]
        made["segmentation"] = mask
    return made


def object_rows(example: Example, max_objects: int) -> Example:
    """The objects of a letterboxed example as rows of fixed number.

    Args:
      example: with `boxes` in pixels [n, 4], `labels` [n] and `extent`.
      max_objects: N; of more objects the largest stay, in their order.

    Returns:
      `boxes` float32 [N, 4], center x and y, width and height as shares of the extent, and `labels` int32 [N], -1
      where there is no object.
    """
    corners, labels = example["boxes"], example["labels"]
    if len(corners) > max_objects:
        sides = corners[:, 2:] - corners[:, :2]
        largest = np.sort(np.argsort(-sides.prod(1), kind="stable")[:max_objects])
        corners, labels = corners[largest], labels[largest]
    boxes, classes = np.zeros((max_objects, 4), np.float32), np.full(max_objects, -1, np.int32)
    shares = corners / np.tile(example["extent"][::-1], 2)[None]
    boxes[: len(corners), :2] = (shares[:, :2] + shares[:, 2:]) / 2
    boxes[: len(corners), 2:] = shares[:, 2:] - shares[:, :2]
    classes[: len(labels)] = labels
    return {"boxes": boxes, "labels": classes}
