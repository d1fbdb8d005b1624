"""`coco:DIR`: `annotations/instances_train*.json` and `instances_val*.json`, each with its folder of images.

The rows and masks are read by torchvision's `CocoDetection` on top of pycocotools, an optional package.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from torchvision.datasets import CocoDetection

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import read_bytes
from search.dense.scenes import (
    MAX_CLASSES,
    MAX_SIDE,
    VOID,
    Objects,
    Scenes,
    file_size,
    optional_module,
    read_image,
)

MAX_JSON_BYTES = 1 << 30
"""Twice those of COCO's instances_train2017.json, the largest of the public ones."""

SLACK_PX = 1.0
"""By so much a box may stand out of its image: COCO's own are rounded."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """A checked file, with its rows as they are in it.

    Attributes:
        categories: Names by the files' own numbers, in the order of these.
        images: By their number.
        document: The rows as pycocotools takes them.
    """

    path: Path
    categories: Mapping[int, str]
    images: Mapping[int, Row]
    document: Mapping[str, Any]
    sha256: str

    @property
    def synthetic(self) -> bool:
        """Whether it says so of its images, as those of `tools.synthetic_coco` do."""
        info = self.document.get("info")
        return isinstance(info, dict) and info.get("synthetic") is True


def read_coco(path: Path) -> CocoFile:
    """Read and check `instances_*.json`.

    Raises:
        InvalidArtifactError: missing, not such a file, or a row is wrong, which it names: a box outside of its
            image, a category that the file does not list, an image that it does not list, a mask of another size.
    """
    data = read_bytes(path, MAX_JSON_BYTES, "expected DIR/annotations/instances_NAME.json and DIR/NAME")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArtifactError(
            f"{path}: not JSON ({error}); is this COCO's file?", code="invalid_annotations"
        ) from error
    try:
        categories = _categories(path, _rows(path, document, "categories"))
        images = _images(path, _rows(path, document, "images"))
        seen: set[int] = set()
        for row in _rows(path, document, "annotations"):
            _check_annotation(path, row, categories, images)
            if row["id"] in seen:
                raise _wrong(path, f"annotation {row['id']} comes twice")
            seen.add(row["id"])
    except (KeyError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise _wrong(path, f"a row {reason[:120]}") from error
    return CocoFile(path, categories, images, document, hashlib.sha256(data).hexdigest())


def _rows(path: Path, document: Any, name: str) -> list[Row]:
    rows = document.get(name) if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _wrong(path, f"it has no list of {name}")
    return cast(list[Row], rows)


def _categories(path: Path, rows: Sequence[Row]) -> dict[int, str]:
    categories = {_whole(row["id"]): str(row["name"])[:200] for row in rows}
    if not rows or len(categories) < len(rows) or len(set(categories.values())) < len(rows):
        raise _wrong(path, "it has no categories, or two of one number or name")
    if len(categories) > MAX_CLASSES:
        raise _wrong(path, f"{len(categories)} categories; at most {MAX_CLASSES}")
    return dict(sorted(categories.items()))


def _images(path: Path, rows: Sequence[Row]) -> dict[int, Row]:
    images: dict[int, Row] = {}
    for row in rows:
        file, number = PurePosixPath(row["file_name"]), _whole(row["id"])
        if file.is_absolute() or ".." in file.parts or not file.name or "\\" in row["file_name"]:
            raise _wrong(
                path, f"image {number} has the file {str(file)[:80]!r}, which leads out of its folder"
            )
        if not all(1 <= _whole(row[side]) <= MAX_SIDE for side in ("height", "width")):
            raise _wrong(path, f"image {number} is {row['width']}x{row['height']}; at most {MAX_SIDE} pixels")
        if number in images:
            raise _wrong(path, f"image {number} comes twice")
        images[number] = row
    if not images:
        raise _wrong(path, "it has no images")
    return images


def _check_annotation(path: Path, row: Row, categories: Mapping[int, str], images: Mapping[int, Row]) -> None:
    what = f"annotation {_whole(row['id'])}"
    image = images.get(_whole(row["image_id"]))
    if image is None:
        raise _wrong(path, f"{what} is of image {row['image_id']}, which the file does not list")
    if _whole(row["category_id"]) not in categories:
        raise _wrong(path, f"{what} has category {row['category_id']}, which the file does not list")
    if row.get("iscrowd", 0) not in (0, 1):
        raise _wrong(path, f"{what} has iscrowd {row['iscrowd']!r}; expected 0 or 1")
    width, height = image["width"], image["height"]
    left, top, wide, high = (_number(value) for value in row["bbox"])
    inside = (
        min(left, top) >= -SLACK_PX
        and min(wide, high) >= 0
        and left + wide <= width + SLACK_PX
        and top + high <= height + SLACK_PX
    )
    if not inside:
        box = ", ".join(f"{value:g}" for value in (left, top, wide, high))
        raise _wrong(
            path, f"{what} has the box [{box}], outside of image {image['id']}, which is {width}x{height}"
        )
    if _number(row.get("area", 0)) < 0:
        raise _wrong(path, f"{what} has the area {row['area']}")
    _check_mask(path, what, row.get("segmentation") or [], height, width)


def _check_mask(path: Path, what: str, mask: Any, height: int, width: int) -> None:
    """Polygons, or run lengths, which say what size of image they are of."""
    if isinstance(mask, dict):
        if [_whole(side) for side in mask["size"]] != [height, width]:
            high, wide = mask["size"]
            raise _wrong(path, f"{what} has a mask of {wide}x{high} for an image of {width}x{height}")
        counts = mask["counts"]
        if isinstance(counts, list):
            if any(_whole(count) < 0 for count in counts) or sum(counts) != height * width:
                raise _wrong(path, f"{what} has run lengths that do not make {width}x{height} pixels")
        elif not isinstance(counts, str):
            raise _wrong(path, f"{what} has run lengths of an unknown kind")
        return
    if not isinstance(mask, list):
        raise _wrong(path, f"{what} has a mask of an unknown kind")
    for polygon in mask:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise _wrong(path, f"{what} has a polygon of under three points")
        for value in polygon:
            _number(value)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"has {value!r:.40} in the place of a whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"has {value!r:.40} in the place of a number")
    return value


def _wrong(path: Path, problem: str) -> InvalidArtifactError:
    return InvalidArtifactError(f"{path}: {problem}; correct or remove it", code="invalid_annotations")


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
    """Open the images of COCO's layout, for detection or segmentation.

    Raises:
        UsageError: no such layout, or pycocotools is not installed.
        InvalidArtifactError: a file is wrong; or its categories are other ones than those of the training file.
    """
    parts = [_open_part(text, path, kind) for kind in ("train", "val")]
    train, validation = parts
    if validation is None:
        raise UsageError(
            f"{text}: no {path / 'annotations'}/instances_val*.json; expected it next to instances_train*.json",
            code="wrong_layout",
        )
    if train is not None and train.file.categories != validation.file.categories:
        own = train.file.categories.items()
        foreign = next(
            (name for row, name in validation.file.categories.items() if (row, name) not in own), ""
        )
        raise InvalidArtifactError(
            f"{validation.file.path}: its categories are not those of {train.file.path.name}"
            + (f", which has no {foreign!r}" if foreign else "")
            + "; mend one of them",
            code="class_mismatch",
        )
    return _scenes(text, path, [part for part in (train, validation) if part is not None])


def _open_part(text: str, path: Path, kind: str) -> _Part | None:
    """Open the file `instances_KIND*.json` and its images; return None without such a file."""
    files = sorted((path / "annotations").glob(f"instances_{kind}*.json"))
    if not files:
        return None
    if len(files) > 1:
        raise UsageError(
            f"{text}: {files[0].name} and {files[1].name}; leave one of them in {files[0].parent}",
            code="wrong_layout",
        )
    name = files[0].stem.removeprefix("instances_")
    folder = next((f for f in (path / name, path / "images" / name) if f.is_dir()), None)
    if folder is None:
        raise UsageError(
            f"{text}: no folder {path / name} with the images of {files[0].name}", code="wrong_layout"
        )
    file = read_coco(files[0])
    return _Part(file, folder, _reader(folder, file))


def _reader(folder: Path, file: CocoFile) -> CocoDetection:
    """Return torchvision's reader of rows that are already checked, without reading the file again."""
    reader = CocoDetection.__new__(CocoDetection)
    super(CocoDetection, reader).__init__(folder)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        reader.coco = optional_module("pycocotools.coco").COCO()
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
        hashed.update(f"{name}\0{file_size(part.path(number))}\n".encode())
    sizes = [[part.file.images[number][side] for side in ("height", "width")] for part, number in places]

    def rows(index: int) -> list[Mapping[str, Any]]:
        part, number = places[index]
        rows: list[Mapping[str, Any]] = part.reader._load_target(number)
        return rows

    def image(index: int) -> np.ndarray:
        part, number = places[index]
        height, width = sizes[index]
        return read_image(part.path(number), names[index], height, width)

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
    valid = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(1))
    extent = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return Objects(
        boxes[valid],
        np.asarray([labels[rows[i]["category_id"]] for i in valid], np.int64),
        np.asarray([rows[i].get("iscrowd", 0) for i in valid], bool),
        np.asarray([rows[i].get("area") or extent[i] for i in valid], np.float32),
    )


def _mask(
    name: str, rows: list[Mapping[str, Any]], labels: Mapping[int, int], height: int, width: int
) -> np.ndarray:
    """Return the label of every pixel; `VOID` where two objects overlap and in crowds.

    As references/segmentation/coco_utils.py of torchvision makes them.
    """
    coder = optional_module("pycocotools.mask")
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
                f"{name}: annotation {row['id']} has a mask that can't be decoded ({error}); correct or remove it",
                code="invalid_annotations",
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
