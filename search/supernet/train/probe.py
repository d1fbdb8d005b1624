"""How good a supernet is while it trains: a few fixed subnets on a part of the search split."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from search.spaces import Arch
from search.supernet.data.images import ImageData
from search.supernet.model.supernet import Supernet
from search.supernet.recipe.samplers import Sampler

PROBES = 4
"""Subnets: enough that `best` does not depend on one of them."""

PROBE_IMAGES = 512
"""Images of the search split; their accuracy has a standard error of 2 %, alike in all checkpoints."""

BATCH_SIZE = 128


def probes(sampler: Sampler, resolution: int) -> list[Arch]:
    """Subnets that a run trains, the same whenever it is asked."""
    rng = random.Random("probes")
    drawn = itertools.chain.from_iterable(sampler.draw(rng, resolution) for _ in range(PROBES))
    return list(dict.fromkeys(itertools.islice(drawn, PROBES)))


def probe_images(data: ImageData) -> np.ndarray:
    """Indices of the images that the probes are judged by."""
    return data.split.search[:: max(1, len(data.split.search) // PROBE_IMAGES)]


@torch.no_grad()
def held_out_top1(
    supernet: Supernet, archs: Sequence[Arch], weights: Mapping[str, Tensor], data: ImageData
) -> float:
    """Mean top-1 accuracy of subnets with `weights`, BN normalising by the batch as in training."""
    hits = images_seen = 0
    device = next(iter(weights.values())).device
    for images, labels in data.batches(probe_images(data), archs[0].resolution, BATCH_SIZE):
        for arch in archs:
            logits = functional_call(supernet, dict(weights), (images.to(device), arch))
            hits += int((logits.argmax(1).cpu() == labels).sum())
            images_seen += len(labels)
    return hits / images_seen
