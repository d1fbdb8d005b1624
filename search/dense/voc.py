"""`voc:DIR`: Pascal VOC as it is unpacked, `DIR/VOCdevkit/VOC2012`; or that folder itself.

Lists and annotations are read by torchvision's `VOCDetection` and `VOCSegmentation`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from torchvision.datasets import VOCDetection, VOCSegmentation

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import read_bytes
from search.dense.scenes import MAX_SIDE, VOID, DenseTaskName, Objects, Scenes, read_sized
from search.supernet.data.sources import file_size

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""In the order of the labels in masks, the first being 1."""

MAX_XML_BYTES = 1 << 20
"""A hundred times the largest of VOC2012."""

SLACK_PX = 1
"""Boxes are whole pixels counted from 1."""


def open_voc(text: str, path: Path, task: DenseTaskName) -> Scenes:
    """Open the images of a task's lists `train` and `val`, in `Main` or `Segmentation`.

    Raises:
        UsageError: no such layout.
        InvalidArtifactError: an image without annotation or mask, or a wrong one, which it names.
    """
    root, year = _devkit(text, path)
    reader = VOCDetection if task == "detection" else VOCSegmentation
    try:
        lists = [reader(root, year=year, image_set=part) for part in ("train", "val")]
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"{text}: not VOC as it is unpacked ({error}); expected DIR/VOCdevkit/VOC2012",
            code="wrong_layout",
        ) from error
    images = [Path(file) for part in lists for file in part.images]
    targets = [Path(file) for part in lists for file in part.targets]
    names = [file.stem for file in images]
    if not len(lists[1]):
        raise InvalidArtifactError(
            f"{text}: the list of validation images is empty; restore it", code="invalid_annotations"
        )
    if foreign := next((file for file in images if file.parent.name != "JPEGImages"), None):
        raise InvalidArtifactError(
            f"{text}: a list names the image {foreign.stem[:40]!r} elsewhere; correct it",
            code="invalid_annotations",
        )
    hashed = hashlib.sha256()
    for name, image, target in zip(names, images, targets, strict=True):
        hashed.update(f"{name}\0{file_size(image)}\0{file_size(target)}\n".encode())
    boundary = len(lists[0])
    objects: list[Objects] = []
    if task == "detection":
        read = [_read_xml(target) for target in targets]
        objects, sizes = [one for one, _ in read], [size for _, size in read]
        taught = [index for index in range(boundary) if len(objects[index].boxes)]
    else:
        sizes = [_same_size(image, target) for image, target in zip(images, targets, strict=True)]
        taught = list(range(boundary))

    def check_task(needed: DenseTaskName) -> None:
        if task != needed:
            raise UsageError(f"{text} was opened for {task}, not for {needed}", code="wrong_task")

    def objects_of(index: int) -> Objects:
        check_task("detection")
        return objects[index]

    def mask_of(index: int) -> np.ndarray:
        check_task("segmentation")
        return _read_mask(targets[index])

    return Scenes(
        name=text,
        classes=CLASSES,
        names=names,
        sizes=np.asarray(sizes, np.int64),
        train=np.asarray(taught, np.int64),
        validation=np.arange(boundary, len(names)),
        empty=boundary - len(taught),
        image=lambda index: read_sized(images[index], names[index], *sizes[index]),
        objects=objects_of,
        mask=mask_of,
        digest=hashed.hexdigest(),
    )


def _devkit(text: str, path: Path) -> tuple[Path, str]:
    """Return the folder that has `VOCdevkit`, and the year; with several years the newest."""
    if path.name.startswith("VOC20") and path.parent.name == "VOCdevkit":
        return path.absolute().parent.parent, path.name.removeprefix("VOC")
    years = sorted(folder.name.removeprefix("VOC") for folder in (path / "VOCdevkit").glob("VOC20[0-9][0-9]"))
    if not years:
        raise UsageError(
            f"{text}: no {path}/VOCdevkit/VOC2012; give the folder in which VOC was unpacked",
            code="wrong_layout",
        )
    if len(years) > 1:
        raise UsageError(
            f"{text}: several years; give one, such as voc:{path}/VOCdevkit/VOC{years[-1]}",
            code="wrong_layout",
        )
    return path, years[0]


def _read_xml(path: Path) -> tuple[Objects, tuple[int, int]]:
    """Objects of an annotation, and height and width of its image."""
    data = read_bytes(path, MAX_XML_BYTES, "restore it")
    try:
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise ValueError("it declares entities, which VOC's do not")
        annotation = VOCDetection.parse_voc_xml(ElementTree.fromstring(data))["annotation"]
        height, width = (int(annotation["size"][side]) for side in ("height", "width"))
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            raise ValueError(f"an image of {width}x{height}; at most {MAX_SIDE} pixels")
        given = annotation.get("object", [])
        boxes = [_box(one, height, width) for one in given]
        if foreign := next((one["name"] for one in given if one["name"] not in CLASSES), None):
            raise ValueError(f"{str(foreign)[:40]!r} is not one of VOC's {len(CLASSES)} categories")
        labels = [CLASSES.index(one["name"]) + 1 for one in given]
    except (ElementTree.ParseError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)[:160]
        raise InvalidArtifactError(
            f"{path}: not an annotation of VOC ({reason}); correct it", code="invalid_annotations"
        ) from error
    corners = np.asarray(boxes, np.float32).reshape(-1, 4)
    difficult = np.asarray([str(one.get("difficult", "0")) == "1" for one in given], bool)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    return Objects(corners, np.asarray(labels, np.int64), difficult, areas), (height, width)


def _box(one: Mapping[str, Any], height: int, width: int) -> tuple[float, float, float, float]:
    """Corners counted from 0, the right and lower edge behind the last pixel."""
    box = one["bndbox"]
    left, top, right, bottom = (float(box[side]) for side in ("xmin", "ymin", "xmax", "ymax"))
    inside = left >= 1 - SLACK_PX and top >= 1 - SLACK_PX
    if not (inside and left < right <= width + SLACK_PX and top < bottom <= height + SLACK_PX):
        raise ValueError(
            f"the box [{left:g}, {top:g}, {right:g}, {bottom:g}] is outside its image, {width}x{height}"
        )
    return max(0.0, left - 1), max(0.0, top - 1), min(right, width), min(bottom, height)


def _same_size(image: Path, target: Path) -> tuple[int, int]:
    """Height and width of image and mask, of their headers."""
    sizes = [_opened(path).size for path in (image, target)]
    (width, height), mask = sizes
    if mask != (width, height):
        raise InvalidArtifactError(
            f"{target} is a mask of {mask[0]}x{mask[1]} for an image of {width}x{height}; restore it",
            code="image_size_mismatch",
        )
    if max(width, height) > MAX_SIDE:
        raise InvalidArtifactError(
            f"{image} is {width}x{height}; at most {MAX_SIDE} pixels", code="file_too_large"
        )
    return height, width


def _read_mask(path: Path) -> np.ndarray:
    with _opened(path) as picture:
        try:
            mask = np.asarray(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise InvalidArtifactError(
                f"{path}: not an intact mask ({error}); restore it", code="damaged_image"
            ) from error
    if mask.ndim != 2 or mask.dtype != np.uint8 or not np.isin(mask, (*range(len(CLASSES) + 1), VOID)).all():
        raise InvalidArtifactError(
            f"{path}: not a mask of VOC's {len(CLASSES)} categories; restore it", code="invalid_annotations"
        )
    return mask


def _opened(path: Path) -> Image.Image:
    try:
        return cast(Image.Image, Image.open(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidArtifactError(
            f"{path}: not an intact image ({error}); restore it", code="damaged_image"
        ) from error
