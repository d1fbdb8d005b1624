"""A network in PyTorch over a set of images."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from orchestrator.accuracy.guesses import Guesses, Keep, guesses_of
from orchestrator.accuracy.images import ImageSet

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
