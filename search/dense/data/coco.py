"""`coco:DIR`: `annotations/instances_train*.json` and `instances_val*.json`, each with its folder of images.

The rows and masks are read by torchvision's `CocoDetection` on top of pycocotools, an optional package.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CocoDetection

from luts.format.errors import InvalidArtifactError, UsageError
from search.dense.data.coco_file import CocoFile, read_coco
from search.dense.data.pictures import read_picture, size_of_file
from search.dense.data.scene import VOID, Objects, Scenes
from search.dense.packages import pycocotools


@dataclass(frozen=True)
class _Part:
    """A file and its folder of images; its images' numbers in order."""

    file: CocoFile
    folder: Path
    reader: CocoDetection

    @property
    def numbers(self) -> list[int]:
        numbers: list[int] = self.reader.ids
        return numbers

    def path(self, number: int) -> Path:
        return self.folder / str(self.file.images[number]["file_name"])


def open_coco(text: str, path: Path) -> Scenes:
    """The images of COCO's layout, for detection and segmentation alike.

    Raises:
        UsageError: no such layout, or pycocotools is not installed.
        InvalidArtifactError: a file is wrong; or its categories are other ones than those of the training file.
    """
    parts = [_open_part(text, path, kind) for kind in ("train", "val")]
    train, validation = parts
    if validation is None:
        raise UsageError(
            f"{text}: no {path / 'annotations'}/instances_val*.json; expected it beside instances_train*.json"
        )
    if train is not None and train.file.categories != validation.file.categories:
        own = train.file.categories.items()
        foreign = next(
            (name for row, name in validation.file.categories.items() if (row, name) not in own), ""
        )
        raise InvalidArtifactError(
            f"{validation.file.path}: its categories are not those of {train.file.path.name}"
            + (f", which has no {foreign!r}" if foreign else "")
            + "; mend one of them"
        )
    return _scenes(text, path, [part for part in (train, validation) if part is not None])


def _open_part(text: str, path: Path, kind: str) -> _Part | None:
    """The file `instances_KIND*.json` and its images; None where there is none."""
    files = sorted((path / "annotations").glob(f"instances_{kind}*.json"))
    if not files:
        return None
    if len(files) > 1:
        raise UsageError(
            f"{text}: {files[0].name} and {files[1].name}; leave one of them in {files[0].parent}"
        )
    name = files[0].stem.removeprefix("instances_")
    folder = next((f for f in (path / name, path / "images" / name) if f.is_dir()), None)
    if folder is None:
        raise UsageError(f"{text}: no folder {path / name} with the images of {files[0].name}")
    file = read_coco(files[0])
    return _Part(file, folder, _reader(folder, file))


def _reader(folder: Path, file: CocoFile) -> CocoDetection:
    """torchvision's reader of rows that are checked already, without reading the file again."""
    reader = CocoDetection.__new__(CocoDetection)
    super(CocoDetection, reader).__init__(folder)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        reader.coco = pycocotools("coco").COCO()
        reader.coco.dataset = dict(file.document)
        reader.coco.createIndex()
    reader.ids = sorted(file.images)
    return reader


def _scenes(text: str, path: Path, parts: list[_Part]) -> Scenes:
    places = [(part, number) for part in parts for number in part.numbers]
    names = [str(part.path(number).relative_to(path)) for part, number in places]
    labels = {number: label for label, number in enumerate(parts[0].file.categories, 1)}
    hashed = hashlib.sha256("\0".join(part.file.sha256 for part in parts).encode())
    for (part, number), name in zip(places, names, strict=True):
        hashed.update(f"{name}\0{size_of_file(part.path(number))}\n".encode())
    sizes = [[part.file.images[number][side] for side in ("height", "width")] for part, number in places]

    def rows(index: int) -> list[Mapping[str, Any]]:
        part, number = places[index]
        rows: list[Mapping[str, Any]] = part.reader._load_target(number)
        return rows

    def image(index: int) -> np.ndarray:
        part, number = places[index]
        height, width = sizes[index]
        return read_picture(part.path(number), names[index], height, width)

    def mask(index: int) -> np.ndarray:
        return _mask(names[index], rows(index), labels, *sizes[index])

    boundary = len(parts[0].numbers) if len(parts) > 1 else 0
    taught = [index for index in range(boundary) if len(_objects(rows(index), labels, *sizes[index]).boxes)]
    return Scenes(
        text,
        tuple(parts[0].file.categories.values()),
        names,
        np.asarray(sizes, np.int64),
        np.asarray(taught, np.int64),
        np.arange(boundary, len(places)),
        boundary - len(taught),
        image,
        lambda index: _objects(rows(index), labels, *sizes[index]),
        mask,
        hashed.hexdigest(),
        any(part.file.synthetic for part in parts),
    )


def _objects(rows: list[Mapping[str, Any]], labels: Mapping[int, int], height: int, width: int) -> Objects:
    """Boxes cut to the image; those without area, of which COCO has two, are left out."""
    boxes = np.asarray([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = np.clip(boxes, 0, np.asarray([width, height, width, height], np.float32))
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1))
    extent = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return Objects(
        boxes[kept],
        np.asarray([labels[rows[i]["category_id"]] for i in kept], np.int64),
        np.asarray([rows[i].get("iscrowd", 0) for i in kept], bool),
        np.asarray([rows[i].get("area") or extent[i] for i in kept], np.float32),
    )


def _mask(
    name: str, rows: list[Mapping[str, Any]], labels: Mapping[int, int], height: int, width: int
) -> np.ndarray:
    """Labels of pixels; where two objects lie over each other, and in crowds, `VOID`.

    As references/segmentation/coco_utils.py of torchvision makes them.
    """
    coder = pycocotools("mask")
    painted, covered = np.zeros((height, width), np.uint8), np.zeros((height, width), np.int32)
    crowds = np.zeros((height, width), bool)
    for row in rows:
        given = row.get("segmentation")
        if not given:
            continue
        try:
            if isinstance(given, list):
                corners = [_inside(polygon, height, width) for polygon in given]
                coded = coder.merge(coder.frPyObjects(corners, height, width))
            else:
                coded = (
                    coder.frPyObjects(given, height, width) if isinstance(given["counts"], list) else given
                )
            one = coder.decode(coded).astype(bool)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidArtifactError(
                f"{name}: annotation {row['id']} has a mask that can't be decoded ({error}); mend or remove it"
            ) from error
        if row.get("iscrowd", 0):
            crowds |= one
            continue
        painted[one] = labels[row["category_id"]]
        covered += one
    painted[(covered > 1) | crowds] = VOID
    return painted


def _inside(polygon: list[float], height: int, width: int) -> list[float]:
    """Corners cut to the image: pycocotools walks every pixel of an edge, however long."""
    corners: list[float] = np.clip(np.reshape(polygon, (-1, 2)), 0, (width, height)).ravel().tolist()
    return corners
