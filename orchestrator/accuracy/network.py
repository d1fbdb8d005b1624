"""A network in PyTorch over a set of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from orchestrator.accuracy.images import ImageSet
from orchestrator.accuracy.predictions import Guesses, Keep, guesses_of
from orchestrator.export.lower.calibration import filled
from orchestrator.export.lower.quantize import quantized
from orchestrator.export.lower.quiet import quiet
from orchestrator.export.lower.rewrite import capture, rewritten

BATCH = 64
"""Images at a time."""


@torch.no_grad()
def guess_with_network(
    module: nn.Module,
    images: ImageSet,
    resolution: int,
    *,
    known: Guesses | None = None,
    keep: Keep = lambda _: None,
) -> Guesses:
    """What a classifier in eval mode says of images at a resolution; the rest is as of `guess_with_program`."""
    done = 0 if known is None else len(known.first)
    for batch in images.batches(resolution, done, len(images.indices), BATCH):
        logits = module(torch.from_numpy(batch)).numpy()
        first = guesses_of(logits)
        if known is not None:
            first = np.concatenate((known.first, first))
        known = Guesses(first, logits.shape[1])
        keep(known)
    if known is None:
        raise ValueError("no images")
    return known


INT8_BATCH = 32
"""Images at a time; graphs have fixed shapes, so the last ones are filled up with copies."""


@dataclass(frozen=True, eq=False)
class Simulated:
    """A network as the exporter quantises it for XNNPACK, run by PyTorch.

    Attributes:
        module: In eval mode, with trained weights.
        ranges: (N, 3, side, side) images that decide the ranges of activations.
        images: That it is asked about.
    """

    module: nn.Module
    ranges: Tensor
    images: ImageSet

    def logits(self, fp32: Sequence[str] | None) -> np.ndarray:
        """(N, outputs) for the images, in int8 but for the modules of these paths; None for all in fp32."""
        with quiet(), torch.no_grad():
            graph = (
                self._captured.module()
                if fp32 is None
                else quantized(self._captured, (next(filled(self.ranges, INT8_BATCH)),), self.ranges, fp32)
            )
            parts = [graph(batch) for batch in filled(self._pixels, INT8_BATCH)]
        return torch.cat(parts)[: len(self._pixels)].numpy()

    @cached_property
    def _captured(self) -> ExportedProgram:
        example = next(filled(self.ranges, INT8_BATCH))
        return capture(rewritten(self.module, "xnnpack"), (example,))

    @cached_property
    def _pixels(self) -> Tensor:
        side, count = self.ranges.shape[-1], len(self.images.indices)
        return torch.from_numpy(np.concatenate(list(self.images.batches(side, 0, count, INT8_BATCH))))
