"""Decoding, suppression and masks on the host in plain torch: what follows a detector or segmentation network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from search.outputs.detection import LEAST_SCORE, default_boxes, detections, levels_of, masks
from search.spaces import get_arch

DETECTOR, SEGMENTER = "autovit-xxs-paper.ssdlite20", "autovit-xxs-paper.deeplablite20"
CALLS = 30
SHOWN_SCORE = 0.3
"""A usual least score of a box that is shown; mAP is taken from `LEAST_SCORE` on."""

SURE_OF_BACKGROUND = 6.0
"""Added to the logit of the background: most places of an image hold nothing."""


def main(calls: int = CALLS) -> str:
    """The section: milliseconds of each step, on one thread, by the clock around it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = _rows(calls)
    finally:
        torch.set_num_threads(threads)
    return "\n".join(
        [
            "## What follows a detector or a segmentation network\n",
            f"`search.outputs` in torch on one thread, batch 1, {calls} calls: median, smallest and largest. "
            "Outputs are random, most places surely background: a trained network's let other numbers of boxes "
            "pass, and time grows with them.\n",
            "| network | step | boxes found | ms | from | to |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _rows(calls: int) -> list[str]:
    detector, segmenter = get_arch(DETECTOR), get_arch(SEGMENTER)
    generator = torch.Generator().manual_seed(0)
    default = default_boxes(levels_of(detector.blocks()))
    output = torch.randn(1, len(default), detector.classes + 1 + 4, generator=generator)
    output[..., 0] += SURE_OF_BACKGROUND
    logits = torch.randn(segmenter.blocks()[-1].output_shape, generator=generator)
    size = (segmenter.resolution, segmenter.resolution)
    rows = []
    for score in (LEAST_SCORE, SHOWN_SCORE):

        def detect(score: float = score) -> int:
            return len(detections(output, default, score=score)[0].scores)

        rows.append(
            _row(DETECTOR, f"decoding, suppression from a score of {score:g} on", detect(), detect, calls)
        )
    rows.append(_row(SEGMENTER, f"mask of {size[0]} px", None, lambda: masks(logits, size), calls))
    return rows


def _row(network: str, step: str, found: int | None, call: Callable[[], object], calls: int) -> str:
    taken_ms = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        taken_ms.append(1e3 * (time.perf_counter() - begun))
    boxes = "-" if found is None else str(found)
    ms = f"{statistics.median(taken_ms):.2f} | {min(taken_ms):.2f} | {max(taken_ms):.2f}"
    return f"| `{network}` | {step} | {boxes} | {ms} |"
