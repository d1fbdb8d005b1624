"""`instances_*.json` of COCO, read from an untrusted file: everything is checked before anything is used."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from luts.format.errors import InvalidArtifactError
from luts.format.files import read_bytes
from search.dense.data.scene import MAX_CLASSES, MAX_SIDE

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
        raise InvalidArtifactError(f"{path}: not JSON ({error}); is this COCO's file?") from error
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
    return InvalidArtifactError(f"{path}: {problem}; mend or remove it")
