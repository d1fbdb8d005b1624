"""Decoding, suppression and masks after a detector or segmentation network, on the host in torch."""

from __future__ import annotations

import functools
import statistics
import timeit
from collections.abc import Callable

import torch

from search.networks.outputs import LEAST_SCORE, default_boxes, detections, levels_of, masks
from search.spaces import get_arch
from tools.tables import Tables

DETECTOR, SEGMENTER = "autovit-xxs-paper.ssdlite20", "autovit-xxs-paper.deeplablite20"
CALLS = 30
SHOWN_SCORE = 0.3
"""Usual lowest score of a box that is shown; mAP counts boxes from `LEAST_SCORE`."""

SURE_OF_BACKGROUND = 6.0
"""Added to the logit of the background: most positions of an image are empty."""


def main(calls: int = CALLS) -> Tables:
    """Time decoding, suppression and masks in torch on one thread, batch 1.

    Outputs are random, most positions surely background; a trained network lets other numbers of boxes pass.
    """
    detector, segmenter = get_arch(DETECTOR), get_arch(SEGMENTER)
    generator = torch.Generator().manual_seed(0)
    default = default_boxes(levels_of(detector.blocks()))
    output = torch.randn(1, len(default), detector.classes + 1 + 4, generator=generator)
    output[..., 0] += SURE_OF_BACKGROUND
    logits = torch.randn(segmenter.blocks()[-1].output_shape, generator=generator)
    size = (segmenter.resolution, segmenter.resolution)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for score in (LEAST_SCORE, SHOWN_SCORE):
            detect = functools.partial(detections, output, default, score=score)
            step = f"boxes with a score of {score:g} or more"
            rows.append({"step": step, "boxes": len(detect()[0].scores), **_times(detect, calls)})
        step = f"mask of {size[0]} px"
        rows.append({"step": step, "boxes": None, **_times(lambda: masks(logits, size), calls)})
    finally:
        torch.set_num_threads(threads)
    return {"Processing of a detector's and a segmenter's outputs": rows}


def _times(call: Callable[[], object], calls: int) -> dict[str, float]:
    times_ms = [1e3 * seconds for seconds in timeit.repeat(call, number=1, repeat=calls)]
    return {"ms": statistics.median(times_ms), "shortest": min(times_ms), "longest": max(times_ms)}
