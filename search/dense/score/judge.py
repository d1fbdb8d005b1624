"""Figures of a network's outputs on images, whatever has run it: PyTorch, or the exported program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from search.blocks import BlockSpec
from search.dense.data.scene import Scenes, Task
from search.dense.score.mean_iou import Overlap, mean_iou
from search.dense.score.mean_precision import Found, Precision, mean_precision
from search.outputs.anchors import default_boxes, levels_of
from search.outputs.detect import detections
from search.outputs.segment import masks

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
