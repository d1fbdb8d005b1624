"""Mean average precision as COCO has it, by pycocotools' own code."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from search.dense.data.scene import Scenes
from search.dense.packages import pycocotools


@dataclass(frozen=True)
class Found:
    """What a detector finds in one image.

    Attributes:
        boxes: (N, 4) float32 left, top, right, bottom in pixels of the image itself.
        scores: (N,) float32.
        labels: (N,) int64 from 1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Precision:
    """COCO's figures, 0 to 1.

    Attributes:
        map: Mean over IoU thresholds 0.5 to 0.95 and the classes that the images have.
        map50: At the threshold 0.5.
        map75: At the threshold 0.75.
        map_small: Of objects under 32 x 32 pixels of the image; None where there are none.
        map_medium: Up to 96 x 96.
        map_large: Larger.
    """

    map: float
    map50: float
    map75: float
    map_small: float | None
    map_medium: float | None
    map_large: float | None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the figures, in the order of `to_dict`."""
        return tuple(field.name for field in fields(cls))

    def to_dict(self) -> dict[str, float | None]:
        """As JSON and tables have it."""
        return dict(vars(self))


def mean_precision(scenes: Scenes, found: Mapping[int, Found]) -> Precision:
    """The figures of detections by image index, over these images; 0 where nothing is found.

    Raises:
        UsageError: pycocotools is not installed.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        truth = _coco(_document(scenes, sorted(found)))
        if not any(len(one.scores) for one in found.values()):
            return Precision(0.0, 0.0, 0.0, None, None, None)
        guesses = truth.loadRes(_results(found))
        judged = pycocotools("cocoeval").COCOeval(truth, guesses, "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    shares = [None if share < 0 else float(share) for share in judged.stats[:6]]
    exact = [share or 0.0 for share in shares[:3]]
    return Precision(exact[0], exact[1], exact[2], *shares[3:])


def _coco(document: dict[str, Any]) -> Any:
    coco = pycocotools("coco").COCO()
    coco.dataset = document
    coco.createIndex()
    return coco


def _document(scenes: Scenes, indices: Sequence[int]) -> dict[str, Any]:
    """The truth in COCO's form, whatever files it is of; numbers of images are indices."""
    annotations: list[dict[str, Any]] = []
    for index in indices:
        objects = scenes.objects(index)
        for box, label, ignored, area in zip(
            objects.boxes.tolist(), objects.labels, objects.ignored, objects.areas, strict=True
        ):
            left, top, right, bottom = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": int(label),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(area),
                    "iscrowd": int(ignored),
                }
            )
    return {
        "info": {},
        "images": [{"id": index, "file_name": scenes.names[index]} for index in indices],
        "categories": [{"id": label, "name": name} for label, name in enumerate(scenes.classes, 1)],
        "annotations": annotations,
    }


def _results(found: Mapping[int, Found]) -> np.ndarray:
    """(N, 7): image, box as left, top, width, height, score, category, as `loadRes` takes it."""
    rows = []
    for index, one in found.items():
        sides = one.boxes[:, 2:] - one.boxes[:, :2]
        images = np.full((len(one.scores), 1), index)
        rows.append(
            np.hstack((images, one.boxes[:, :2], sides, one.scores[:, None], one.labels[:, None])).astype(
                float
            )
        )
    return np.concatenate(rows)
