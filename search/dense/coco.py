"""`coco:DIR`: `annotations/instances_train*.json` and `instances_val*.json`, each with its folder of images.

Masks are decoded by pycocotools, an optional package.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import Field, FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # typing's own lacks what pydantic needs before Python 3.12

from luts.format.errors import InvalidArtifactError, UsageError, first_problem
from luts.format.files import read_bytes
from search.dense.scenes import (
    MAX_CLASSES,
    MAX_SIDE,
    VOID,
    Objects,
    Scenes,
    optional_module,
    read_sized,
)
from search.supernet.data.sources import file_size

MAX_JSON_BYTES = 1 << 30
"""Twice those of COCO's instances_train2017.json, the largest of the public ones."""

SLACK_PX = 1.0
"""By so much a box may stand out of its image: COCO's own are rounded."""

_Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
_Polygon = Annotated[list[FiniteFloat], Field(min_length=6)]


class _Category(TypedDict):
    id: int
    name: str


class _Image(TypedDict):
    id: int
    file_name: str
    height: _Side
    width: _Side


class _RunLengths(TypedDict):
    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: list[NonNegativeInt] | str


class _Annotation(TypedDict):
    id: int
    image_id: int
    category_id: int
    bbox: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]
    area: NotRequired[Annotated[FiniteFloat, Field(ge=0)]]
    iscrowd: NotRequired[Literal[0, 1]]
    segmentation: NotRequired[list[_Polygon] | _RunLengths | None]


class _Document(TypedDict):
    categories: Annotated[list[_Category], Field(min_length=1, max_length=MAX_CLASSES)]
    images: Annotated[list[_Image], Field(min_length=1)]
    annotations: list[_Annotation]
    info: NotRequired[Any]


_DOCUMENT = TypeAdapter(_Document)


@dataclass(frozen=True)
class CocoFile:
    """A checked file and its folder of images.

    Attributes:
        categories: Names by the file's own numbers, in the order of these.
        images: By number, in the order of these.
        annotations: Those of an image, by its number.
        synthetic: Whether the file says so of its images, as those of `tools.synthetic_coco` do.
    """

    path: Path
    folder: Path
    categories: Mapping[int, str]
    images: Mapping[int, _Image]
    annotations: Mapping[int, list[_Annotation]]
    sha256: str
    synthetic: bool


def read_coco(path: Path, folder: Path) -> CocoFile:
    """Read and check `instances_*.json`; raises InvalidArtifactError, which names a wrong row."""
    data = read_bytes(path, MAX_JSON_BYTES, "expected DIR/annotations/instances_NAME.json and DIR/NAME")
    try:
        document = _DOCUMENT.validate_json(data, strict=True)
        categories = {row["id"]: row["name"][:200] for row in sorted(document["categories"], key=_number)}
        images = {row["id"]: row for row in sorted(document["images"], key=_number)}
        _check_unique("category", [row["id"] for row in document["categories"]])
        _check_unique("category", list(categories.values()))
        _check_unique("image", [row["id"] for row in document["images"]])
        _check_unique("annotation", [row["id"] for row in document["annotations"]])
        for image in images.values():
            file = PurePosixPath(image["file_name"])
            if file.is_absolute() or ".." in file.parts or not file.name or "\\" in image["file_name"]:
                raise ValueError(
                    f"image {image['id']} has the file {str(file)[:80]!r}, which leads out of its folder"
                )
        annotations: defaultdict[int, list[_Annotation]] = defaultdict(list)
        for row in document["annotations"]:
            _check_annotation(row, categories, images)
            annotations[row["image_id"]].append(row)
    except ValueError as error:
        problem = first_problem(error, "JSON") if isinstance(error, ValidationError) else error
        raise InvalidArtifactError(
            f"{path}: {problem}; correct or remove it", code="invalid_annotations"
        ) from error
    info = document.get("info")
    synthetic = isinstance(info, dict) and info.get("synthetic") is True
    sha256 = hashlib.sha256(data).hexdigest()
    return CocoFile(path, folder, categories, images, annotations, sha256, synthetic)


def _number(row: _Category | _Image) -> int:
    return row["id"]


def _check_unique(what: str, names: Sequence[int | str]) -> None:
    name, count = Counter(names).most_common(1)[0] if names else ("", 1)
    if count > 1:
        raise ValueError(f"{what} {name} comes twice")


def _check_annotation(row: _Annotation, categories: Mapping[int, str], images: Mapping[int, _Image]) -> None:
    """Raise ValueError where a row does not go with the rest of its file."""
    what, image = f"annotation {row['id']}", images.get(row["image_id"])
    if image is None:
        raise ValueError(f"{what} is of image {row['image_id']}, which the file does not list")
    if row["category_id"] not in categories:
        raise ValueError(f"{what} has category {row['category_id']}, which the file does not list")
    width, height = image["width"], image["height"]
    left, top, wide, high = row["bbox"]
    inside = (
        min(left, top) >= -SLACK_PX
        and min(wide, high) >= 0
        and left + wide <= width + SLACK_PX
        and top + high <= height + SLACK_PX
    )
    if not inside:
        box = ", ".join(f"{value:g}" for value in row["bbox"])
        raise ValueError(
            f"{what} has the box [{box}], outside of image {image['id']}, which is {width}x{height}"
        )
    mask = row.get("segmentation") or []
    if isinstance(mask, list):
        if any(len(polygon) % 2 for polygon in mask):
            raise ValueError(f"{what} has a polygon with half a point")
    elif mask["size"] != [height, width]:
        raise ValueError(f"{what} has a mask of {mask['size'][::-1]} for an image of {width}x{height}")
    elif isinstance(mask["counts"], list) and sum(mask["counts"]) != height * width:
        raise ValueError(f"{what} has run lengths that do not make {width}x{height} pixels")


def open_coco(text: str, path: Path) -> Scenes:
    """Open the images of COCO's layout, for detection or segmentation.

    Raises:
        UsageError: no such layout, or pycocotools is not installed.
        InvalidArtifactError: a file is wrong, or its categories are not those of the training file.
    """
    optional_module("pycocotools.coco")
    train, validation = (_open_file(text, path, kind) for kind in ("train", "val"))
    if validation is None:
        raise UsageError(
            f"{text}: no {path / 'annotations'}/instances_val*.json; expected it next to instances_train*.json",
            code="wrong_layout",
        )
    if train is not None and train.categories != validation.categories:
        own = train.categories.items()
        foreign = next((name for row, name in validation.categories.items() if (row, name) not in own), "")
        raise InvalidArtifactError(
            f"{validation.path}: its categories are not those of {train.path.name}"
            + (f", which has no {foreign!r}" if foreign else "")
            + "; mend one of them",
            code="class_mismatch",
        )
    return _scenes(text, path, [file for file in (train, validation) if file is not None])


def _open_file(text: str, path: Path, kind: str) -> CocoFile | None:
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
    return read_coco(files[0], folder)


def _scenes(text: str, path: Path, files: Sequence[CocoFile]) -> Scenes:
    places = [(file, image) for file in files for image in file.images.values()]
    paths = [file.folder / image["file_name"] for file, image in places]
    names = [str(each.relative_to(path)) for each in paths]
    labels = {number: label for label, number in enumerate(files[0].categories, 1)}
    hashed = hashlib.sha256("\0".join(file.sha256 for file in files).encode())
    for each, name in zip(paths, names, strict=True):
        hashed.update(f"{name}\0{file_size(each)}\n".encode())
    sizes = [(image["height"], image["width"]) for _, image in places]

    def rows(index: int) -> list[_Annotation]:
        file, image = places[index]
        return file.annotations.get(image["id"], [])

    boundary = len(files[0].images) if len(files) > 1 else 0
    taught = [index for index in range(boundary) if len(_objects(rows(index), labels, *sizes[index]).boxes)]
    return Scenes(
        name=text,
        classes=tuple(files[0].categories.values()),
        names=names,
        sizes=np.asarray(sizes, np.int64),
        train=np.asarray(taught, np.int64),
        validation=np.arange(boundary, len(places)),
        empty=boundary - len(taught),
        image=lambda index: read_sized(paths[index], names[index], *sizes[index]),
        objects=lambda index: _objects(rows(index), labels, *sizes[index]),
        mask=lambda index: _mask(names[index], rows(index), labels, *sizes[index]),
        digest=hashed.hexdigest(),
        synthetic=any(file.synthetic for file in files),
    )


def _objects(rows: Sequence[_Annotation], labels: Mapping[int, int], height: int, width: int) -> Objects:
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
    name: str, rows: Sequence[_Annotation], labels: Mapping[int, int], height: int, width: int
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
            coded: Any = given
            if isinstance(given, list):
                corners = [_inside(polygon, height, width) for polygon in given]
                coded = coder.merge(coder.frPyObjects(corners, height, width))
            elif isinstance(given["counts"], list):
                coded = coder.frPyObjects(given, height, width)
            covering = coder.decode(coded).astype(bool)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidArtifactError(
                f"{name}: annotation {row['id']} has a mask that can't be decoded ({error}); correct or remove it",
                code="invalid_annotations",
            ) from error
        if row.get("iscrowd", 0):
            crowds |= covering
            continue
        painted[covering] = labels[row["category_id"]]
        covered += covering
    painted[(covered > 1) | crowds] = VOID
    return painted


def _inside(polygon: list[float], height: int, width: int) -> list[float]:
    """Corners cut to the image: pycocotools walks every pixel of an edge, however long."""
    return np.clip(np.reshape(polygon, (-1, 2)), 0, (width, height)).ravel().tolist()
