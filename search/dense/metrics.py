"""Mean intersection over union of masks, by torchmetrics."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.blocks import BlockSpec
from search.dense.scenes import VOID, Scenes, Task, pycocotools, torchmetrics
from search.networks.outputs import default_boxes, detections, levels_of, masks


@dataclass(frozen=True)
class Overlap:
    """Figures 0 to 1.

    Attributes:
        miou: Mean over the background and the classes that truth or guesses have.
        pixel_accuracy: Share of the pixels that are right.
    """

    miou: float
    pixel_accuracy: float

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the figures, in the order of `to_dict`."""
        return tuple(field.name for field in fields(cls))

    def to_dict(self) -> dict[str, float | None]:
        """As JSON and tables have it."""
        return dict(vars(self))


def mean_iou(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: int) -> Overlap:
    """The figures of guessed and true masks, each uint8 (H, W); of all pixels of all images together.

    Args:
        pairs: Guess and truth of each image; pixels that are `VOID` in the truth do not count.
        classes: Of objects; the background is one more.

    Raises:
        UsageError: torchmetrics is not installed.
        ValueError: there are no images.
    """
    kinds = torchmetrics("classification")
    how = {"num_classes": classes + 1, "ignore_index": VOID, "validate_args": False}
    jaccard = kinds.MulticlassJaccardIndex(average="macro", **how)
    right = kinds.MulticlassAccuracy(average="micro", **how)
    none = True
    for guess, truth in pairs:
        pair = torch.from_numpy(np.array(guess)).long(), torch.from_numpy(np.array(truth)).long()
        jaccard.update(*pair)
        right.update(*pair)
        none = False
    if none:
        raise ValueError("no images")
    return Overlap(*(min(1.0, kind.compute().item()) for kind in (jaccard, right)))  # sums of fp32


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


Outputs = Iterable[tuple[np.ndarray, Tensor]]
"""Indices of images (B,), and what the network gives for them (B, ...)."""

Figures = Precision | Overlap


def judge(task: Task, scenes: Scenes, blocks: tuple[BlockSpec, ...], outputs: Outputs) -> Figures:
    """mAP or mIoU of outputs; images are stretched to the network's input, and figures are of their own pixels.

    Args:
        task: What the outputs are of.
        scenes: The images.
        blocks: Of the network, which say where its default boxes are.
        outputs: For all images that count.
    """
    if task == "detection":
        return mean_precision(scenes, _found(scenes, default_boxes(levels_of(blocks)), outputs))
    return mean_iou(_masks(scenes, outputs), len(scenes.classes))


def _found(scenes: Scenes, default: Tensor, outputs: Outputs) -> dict[int, Found]:
    found = {}
    for indices, output in outputs:
        for index, one in zip(map(int, indices), detections(output.cpu(), default), strict=True):
            height, width = scenes.sizes[index]
            boxes = one.boxes.numpy() * np.asarray([width, height, width, height], np.float32)
            found[index] = Found(boxes, one.scores.numpy(), one.labels.numpy())
    return found


def _masks(scenes: Scenes, outputs: Outputs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for indices, output in outputs:
        for place, index in enumerate(map(int, indices)):
            height, width = map(int, scenes.sizes[index])
            (guess,) = masks(output[place : place + 1].cpu(), (height, width))
            yield guess.numpy().astype(np.uint8), scenes.mask(index)
