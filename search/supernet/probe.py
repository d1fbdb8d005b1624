"""How good a supernet is while it trains: a few fixed subnets on a part of the search split."""

from __future__ import annotations

import random
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from search.supernet.data import ImageData
from search.supernet.supernet import Supernet

PROBES = 4
"""Subnets: enough that `best` does not depend on one of them."""

PROBE_IMAGES = 512
"""Images of the search split; their accuracy has a standard error of 2 %, alike in all checkpoints."""

BATCH_SIZE = 128


@torch.no_grad()
def held_out_top1(
    supernet: Supernet, weights: Mapping[str, Tensor], data: ImageData, resolution: int
) -> float:
    """Mean top-1 accuracy of the probes with `weights`, BN normalising by the batch as in training."""
    rng = random.Random("probes")
    archs = [supernet.space.sample(rng, (resolution,)) for _ in range(PROBES)]
    shuffled = data.split.search[:: max(1, len(data.split.search) // PROBE_IMAGES)]
    hits = images_seen = 0
    device = next(iter(weights.values())).device
    for images, labels in data.batches(shuffled, resolution, BATCH_SIZE):
        for arch in archs:
            logits = functional_call(supernet, dict(weights), (images.to(device), arch))
            hits += int((logits.argmax(1).cpu() == labels).sum())
            images_seen += len(labels)
    return hits / images_seen
