"""Make a small SYNTHETIC set for detection and segmentation in COCO's layout: labelled images on canvases.

`python -m tools.synthetic_coco --data cifar10:FILE.npz -o DIR` cuts images to ellipses and polygons, scales them
and places them next to each other on smooth noise. Training canvases show training images of the source, validation
canvases its validation images. The same seed makes the same pixels and boxes; their digest is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from luts.format.errors import BlocktimeError, UsageError
from luts.format.files import check_folder, storage_errors, write_json
from orchestrator.wire.errors import exit_code
from search.supernet.data.images import split_source
from search.supernet.data.sources import ImageSource, open_source

DESCRIPTION = (
    "SYNTHETIC: labelled images placed on canvases of noise by tools/synthetic_coco.py; not photographs"
)

CORNERS = (3, 4, 5, 6, 24)
"""Corners of the shapes that images are cut to; 24 make an ellipse."""

SHARES = (0.18, 0.5)
"""Smallest and largest side of an object, relative to the canvas."""

TRIES = 20
"""Positions tried for an object before it is omitted: objects do not overlap."""

GRAIN = 8
"""Spots of noise along a side."""


@dataclass(frozen=True)
class Placed:
    """An object on a canvas: corners (N, 2) in pixels, and its label (1 or more)."""

    corners: np.ndarray
    label: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width and height."""
        (left, top), (right, bottom) = self.corners.min(0), self.corners.max(0)
        return float(left), float(top), float(right - left), float(bottom - top)

    @property
    def area(self) -> float:
        """Area of the polygon, by the shoelace formula."""
        x, y = self.corners.T
        return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2

    def annotation(self, image: int, number: int) -> dict[str, Any]:
        """Return the object as COCO's files have it."""
        return {
            "id": number,
            "image_id": image,
            "category_id": self.label,
            "bbox": self.box,
            "area": self.area,
            "iscrowd": 0,
            "segmentation": [self.corners.ravel().tolist()],
        }


def make_set(
    source: ImageSource, folder: Path, *, train: int, val: int, side: int, objects: int, seed: int
) -> str:
    """Write the images and `annotations/instances_train.json` and `instances_val.json`.

    Args:
        source: Labelled images.
        folder: Empty or new.
        train: Canvases for training.
        val: Canvases for validation.
        side: Of a canvas in pixels.
        objects: Most objects of a canvas; it has at least one.
        seed: Decides every pixel and box.

    Returns:
        sha256 of all pixels and annotations.

    Raises:
        UsageError: the folder holds something, or the source has too few images.
        StorageError: nothing could be written.
    """
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; give a new folder", code="folder_not_empty")
    split, hashed = split_source(source), hashlib.sha256()
    parts = (("train", train, split.train), ("val", val, split.validation))
    for number, (name, count, chosen) in enumerate(parts):
        scenes = _scenes(source, chosen, count, side, objects, np.random.SeedSequence([seed, number]))
        hashed.update(_write_part(folder, name, scenes, source.classes, seed).encode())
    return hashed.hexdigest()


def _scenes(
    source: ImageSource,
    chosen: np.ndarray,
    count: int,
    side: int,
    objects: int,
    seeds: np.random.SeedSequence,
) -> Iterator[tuple[np.ndarray, list[Placed]]]:
    for child in seeds.spawn(count):
        rng = np.random.default_rng(child)
        canvas, placed = _noise(rng, side), list[Placed]()
        for _ in range(int(rng.integers(1, objects + 1))):
            index = int(rng.choice(chosen))
            corners = _place(rng, side, placed)
            if corners is None:
                continue
            _paste(canvas, source.image(index), corners)
            placed.append(Placed(corners, int(source.labels[index]) + 1))
        yield canvas, placed


def _place(rng: np.random.Generator, side: int, placed: Sequence[Placed]) -> np.ndarray | None:
    """Return corners of a new object whose box is apart from the others'; None where no position was found."""
    for _ in range(TRIES):
        extent = side * rng.uniform(*SHARES)
        corners = int(rng.choice(CORNERS))
        angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(corners) / corners
        radii = extent / 2 * np.array([1.0, rng.uniform(0.7, 1.0)])
        middle = rng.uniform(extent / 2, side - extent / 2, 2)
        shape: np.ndarray = np.round(middle + radii * np.stack((np.cos(angles), np.sin(angles)), 1), 1)
        low, high, others = shape.min(0), shape.max(0), [other.corners for other in placed]
        if not any((low < other.max(0)).all() and (high > other.min(0)).all() for other in others):
            return shape
    return None


def _paste(canvas: np.ndarray, pixels: np.ndarray, corners: np.ndarray) -> None:
    """Paste an image through a polygon, stretched to its box."""
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    width, height = (high - low).tolist()
    shown = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    stencil = Image.new("1", (width, height))
    ImageDraw.Draw(stencil).polygon([tuple(corner) for corner in (corners - low).tolist()], fill=1)
    area = canvas[low[1] : high[1], low[0] : high[0]]
    inside = np.asarray(stencil)[: area.shape[0], : area.shape[1]]
    area[inside] = shown[: area.shape[0], : area.shape[1]][inside]


def _noise(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return smooth spots of colour with grain, uint8 (side, side, 3)."""
    spots = Image.fromarray(rng.integers(0, 256, (GRAIN, GRAIN, 3), np.uint8))
    smooth = np.asarray(spots.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def _write_part(
    folder: Path,
    name: str,
    scenes: Iterator[tuple[np.ndarray, list[Placed]]],
    classes: Sequence[str],
    seed: int,
) -> str:
    """Write images and annotations of a part; return their sha256."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    hashed = hashlib.sha256()
    with storage_errors(f"cannot write {folder / name}"):
        (folder / name).mkdir(parents=True)
        for number, (canvas, placed) in enumerate(scenes, 1):
            file = f"{number:06d}.png"
            Image.fromarray(canvas).save(folder / name / file)
            hashed.update(canvas.data)
            height, width = canvas.shape[:2]
            images.append({"id": number, "file_name": file, "height": height, "width": width})
            for one in placed:
                annotations.append(one.annotation(number, len(annotations) + 1))
    document = {
        "info": {"description": DESCRIPTION, "synthetic": True, "seed": seed},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label, "name": text} for label, text in enumerate(classes, 1)],
    }
    write_json(folder / "annotations" / f"instances_{name}.json", document)
    hashed.update(json.dumps(document, sort_keys=True).encode())
    return hashed.hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a set from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.synthetic_coco", description=__doc__)
    parser.add_argument(
        "--data", required=True, help="images as `bench train` takes them: cifar10:FILE.npz, ..."
    )
    parser.add_argument("--output", "-o", type=Path, required=True, help="a new folder, then coco:FOLDER")
    parser.add_argument("--train", type=int, default=2000, help="canvases for training")
    parser.add_argument("--val", type=int, default=400, help="canvases for validation")
    parser.add_argument("--side", type=int, default=256, help="of a canvas, in pixels")
    parser.add_argument("--objects", type=int, default=4, help="most objects of a canvas")
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(arguments))
    try:
        if min(given["train"], given["val"], given["objects"]) < 1 or given["side"] < 32 or given["seed"] < 0:
            raise UsageError(
                "--train, --val and --objects take 1 or more, --side 32 or more, --seed 0 or more",
                code="out_of_range",
            )
        digest = make_set(open_source(given.pop("data")), given.pop("output"), **given)
    except BlocktimeError as error:
        print(f"synthetic_coco: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    print(f"{DESCRIPTION}\nsha256 of pixels and annotations: {digest}")


if __name__ == "__main__":
    main()
