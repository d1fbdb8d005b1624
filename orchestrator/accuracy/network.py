"""Predictions of a network in PyTorch, in fp32 or with simulated int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from orchestrator.accuracy.predictions import ImageSet, OnPredictions, Predictions
from orchestrator.export.lower import quiet
from orchestrator.export.lower.calibration import filled
from orchestrator.export.lower.quantize import quantized
from orchestrator.export.lower.rewrite import capture, rewritten

BATCH = 64
"""Images at a time."""

INT8_BATCH = 32
"""Images at a time; graphs have fixed shapes, so the last batch is filled up with copies."""


@torch.no_grad()
def predict_with_network(
    module: nn.Module,
    images: ImageSet,
    resolution: int,
    *,
    known: Predictions | None = None,
    on_predictions: OnPredictions = lambda _: None,
) -> Predictions:
    """Return the predictions of a classifier in eval mode for images.

    `known` are predictions for the first images, which are not computed again; `on_predictions` is called with all
    predictions so far.
    """
    for batch in images.batches(resolution, len(known) if known else 0, len(images.indices), BATCH):
        part = Predictions.of_logits(module(torch.from_numpy(batch)).numpy())
        known = known.followed_by(part) if known else part
        on_predictions(known)
    if known is None:
        raise ValueError("no images")
    return known


@dataclass(frozen=True, eq=False)
class SimulatedInt8:
    """A network as the exporter quantises it for XNNPACK, run by PyTorch.

    Attributes:
        module: In eval mode, with trained weights.
        calibration: (N, 3, side, side) images that decide the ranges of activations.
    """

    module: nn.Module
    calibration: Tensor
    images: ImageSet

    def logits(self, keep_fp32: Sequence[str] | None) -> np.ndarray:
        """Return (N, outputs) in int8 except for the modules with these paths; None for all in fp32."""
        with quiet(), torch.no_grad():
            graph = (
                self._captured.module()
                if keep_fp32 is None
                else quantized(self._captured, (self._example,), self.calibration, keep_fp32)
            )
            parts = [graph(batch) for batch in filled(self._pixels, INT8_BATCH)]
        return torch.cat(parts)[: len(self._pixels)].numpy()

    @property
    def _example(self) -> Tensor:
        return next(filled(self.calibration, INT8_BATCH))

    @cached_property
    def _captured(self) -> ExportedProgram:
        return capture(rewritten(self.module, "xnnpack"), (self._example,))

    @cached_property
    def _pixels(self) -> Tensor:
        side, count = self.calibration.shape[-1], len(self.images.indices)
        return torch.from_numpy(np.concatenate(list(self.images.batches(side, 0, count, INT8_BATCH))))
