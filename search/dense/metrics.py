"""Mean average precision and mean intersection over union, of outputs of PyTorch or an exported program."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.blocks import BlockSpec
from search.dense.scenes import VOID, DenseTaskName, Scenes, optional_module
from search.networks.outputs import default_boxes, detections, levels_of, masks

Outputs = Iterable[tuple[np.ndarray, Tensor]]
"""Indices of images (B,), and the network's outputs for them (B, ...)."""

METRICS: Mapping[DenseTaskName, tuple[str, ...]] = {
    "detection": ("map", "map50", "map75", "map_small", "map_medium", "map_large"),
    "segmentation": ("miou", "pixel_accuracy"),
}
"""Names of the metrics of a task, the main one first.

`map` is the mean over IoU thresholds 0.5 to 0.95 and the classes that the images have; `map_small` is of objects
under 32 x 32 pixels of the image, `map_medium` up to 96 x 96, None where there are none. `miou` is the mean over
the background and the classes that truth or predictions have.
"""


def evaluate_outputs(
    task: DenseTaskName, scenes: Scenes, blocks: tuple[BlockSpec, ...], outputs: Outputs
) -> dict[str, float | None]:
    """Return the metrics of a network's outputs; they are of the images' own pixels, whatever their network saw.

    `blocks` of the network decide its default boxes. Raises UsageError if pycocotools or torchmetrics is missing.
    """
    if task == "detection":
        return mean_precision(scenes, _detections(scenes, default_boxes(levels_of(blocks)), outputs))
    return mean_iou(_masks(scenes, outputs), len(scenes.classes))


def mean_iou(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: int) -> dict[str, float | None]:
    """Return the metrics of predicted and true masks, over the pixels of all images together.

    Args:
        pairs: Prediction and truth of each image, uint8 (H, W); pixels that are `VOID` in the truth do not count.
        classes: Number of object classes; the background is one more.

    Raises:
        ValueError: there are no images.
    """
    kinds = optional_module("torchmetrics.classification")
    settings = {"num_classes": classes + 1, "ignore_index": VOID, "validate_args": False}
    jaccard = kinds.MulticlassJaccardIndex(average="macro", **settings)
    accuracy = kinds.MulticlassAccuracy(average="micro", **settings)
    images = 0
    for predicted, truth in pairs:
        pair = torch.from_numpy(np.array(predicted)).long(), torch.from_numpy(np.array(truth)).long()
        jaccard.update(*pair)
        accuracy.update(*pair)
        images += 1
    if not images:
        raise ValueError("no images")
    values = (min(1.0, kind.compute().item()) for kind in (jaccard, accuracy))  # fp32 sums may exceed 1
    return dict(zip(METRICS["segmentation"], values, strict=True))


@dataclass(frozen=True)
class Detected:
    """Detections in one image.

    Attributes:
        boxes: (N, 4) float32 left, top, right, bottom in pixels of the image itself.
        scores: (N,) float32.
        labels: (N,) int64 from 1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def mean_precision(scenes: Scenes, detected: Mapping[int, Detected]) -> dict[str, float | None]:
    """Return COCO's metrics of detections by image index, computed by pycocotools; 0 without any detection."""
    names = METRICS["detection"]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = optional_module("pycocotools.coco").COCO()
        truth.dataset = _document(scenes, sorted(detected))
        truth.createIndex()
        if not any(len(each.scores) for each in detected.values()):
            return dict.fromkeys(names[:3], 0.0) | dict.fromkeys(names[3:])
        evaluation = optional_module("pycocotools.cocoeval").COCOeval(
            truth, truth.loadRes(_results(detected)), "bbox"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [None if value < 0 else float(value) for value in evaluation.stats[:6]]
    return dict(zip(names, [*(value or 0.0 for value in values[:3]), *values[3:]], strict=True))


def _document(scenes: Scenes, indices: Sequence[int]) -> dict[str, Any]:
    """Return the truth in COCO's form; image ids are indices."""
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


def _results(detected: Mapping[int, Detected]) -> np.ndarray:
    """Return (N, 7): image, box as left, top, width, height, score, category, as `loadRes` takes it."""
    rows = []
    for index, each in detected.items():
        sides = each.boxes[:, 2:] - each.boxes[:, :2]
        images = np.full((len(each.scores), 1), index)
        columns = (images, each.boxes[:, :2], sides, each.scores[:, None], each.labels[:, None])
        rows.append(np.hstack(columns).astype(float))
    return np.concatenate(rows)


def _detections(scenes: Scenes, default: Tensor, outputs: Outputs) -> dict[int, Detected]:
    detected = {}
    for indices, output in outputs:
        for index, found in zip(map(int, indices), detections(output.cpu(), default), strict=True):
            height, width = scenes.sizes[index]
            boxes = found.boxes.numpy() * np.asarray([width, height, width, height], np.float32)
            detected[index] = Detected(boxes, found.scores.numpy(), found.labels.numpy())
    return detected


def _masks(scenes: Scenes, outputs: Outputs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for indices, output in outputs:
        for place, index in enumerate(map(int, indices)):
            height, width = map(int, scenes.sizes[index])
            (predicted,) = masks(output[place : place + 1].cpu(), (height, width))
            yield predicted.numpy().astype(np.uint8), scenes.mask(index)
