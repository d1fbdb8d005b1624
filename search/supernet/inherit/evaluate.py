"""Accuracy of subnets with inherited weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from luts.format.errors import UsageError
from search.networks import Network
from search.spaces import Arch
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source
from search.supernet.inherit.recalibrate import PrefixCache, recalibrate
from search.supernet.model.device import choose_device
from search.supernet.model.supernet import Supernet, stage_ends
from search.supernet.recipe.scope import check_trained
from search.supernet.train.checkpoint import load_supernet
from search.supernet.train.checkpoint_info import CheckpointInfo

CALIBRATION_BATCHES = 64
"""Training batches for BN statistics; all training images where there are fewer."""


@dataclass(frozen=True)
class Scores:
    """Shares of images, 0 to 1, whose label is the first guess, and among the first five."""

    top1: float
    top5: float


def reopen_data(info: CheckpointInfo, source: str | None = None) -> ImageData:
    """The images that a supernet was trained on, split alike; `source` where they lie elsewhere now."""
    return ImageData(
        open_source(source or info.source), info.split_seed, info.split_fraction, info.image_side
    )


class InheritedAccuracy:
    """Accuracy of subnets on images held out of training: the search split, or, once at the end, validation."""

    def __init__(
        self,
        supernet: Supernet,
        info: CheckpointInfo,
        data: ImageData,
        *,
        final: bool = False,
        calibration_batches: int = CALIBRATION_BATCHES,
        batch_size: int = 128,
    ):
        """`final`: judge on the validation split, which nothing may be chosen by.

        Raises:
            UsageError: the data are not those that the supernet was trained on, so nothing is known to be held out.
        """
        trained_on = (info.data_digest, info.split_seed, info.split_fraction, info.image_side)
        if trained_on != (data.source.digest, data.seed, data.fraction, data.side):
            raise UsageError(
                f"the supernet was trained on {info.source}, {data.source.name} differs in images or split; "
                "evaluate on the same data"
            )
        self.supernet, self.info, self.data, self.batch_size = supernet, info, data, batch_size
        self.split_name: Literal["search", "validation"] = "validation" if final else "search"
        self._held_out = data.split.validation if final else data.split.search
        shuffled = np.random.default_rng(0).permutation(data.split.train)
        self._calibration = shuffled[: calibration_batches * batch_size]
        self.prefixes = PrefixCache()
        self.device = torch.device("cpu")
        self._described = (
            info.weights_sha256,
            *trained_on,
            self.split_name,
            len(self._calibration),
            batch_size,
        )

    def move_to(self, on: str | torch.device, worker: int = 0) -> None:
        """Compute there from now on, one of `DEVICES`; `UsageError` where there is none."""
        self.device = choose_device(on, worker) if isinstance(on, str) else on
        self.supernet.to(self.device)
        self.prefixes = PrefixCache()

    @property
    def held_out(self) -> np.ndarray:
        """Indices of the images that are judged on."""
        return self._held_out

    @property
    def fingerprint(self) -> str:
        """sha256 of everything besides the architecture that decides an accuracy; devices round differently."""
        described = self._described if self.device.type == "cpu" else (*self._described, self.device.type)
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def network(self, arch: Arch) -> Network:
        """The standalone network with inherited weights and BN statistics of its own, on `device` for inference.

        Raises:
            UsageError: of another space, or another than the one that was trained alone.
        """
        check_trained(arch, self.info.recipe, self.supernet.space)
        path = self.supernet.path(arch)
        network = self.supernet.extract(arch).to(self.device)
        batches = self.data.batches(self._calibration, arch.resolution, self.batch_size)
        recalibrate(
            network,
            (images.to(self.device) for images, _ in batches),
            (arch.resolution, *path),
            stage_ends(path),
            self.prefixes,
        )
        return network

    def accuracy(self, arch: Arch) -> float:
        """Top-1 accuracy, 0 to 1."""
        return self.scores(arch).top1

    @torch.no_grad()
    def scores(self, arch: Arch) -> Scores:
        """Top-1 and top-5 on the held-out images; with fewer than five classes all of them count."""
        network = self.network(arch)
        hits = torch.zeros(2, dtype=torch.int64)
        for images, labels in self.data.batches(self._held_out, arch.resolution, self.batch_size):
            logits = network(images.to(self.device))
            right = logits.topk(min(5, logits.shape[1]), 1).indices == labels.to(self.device)[:, None]
            hits += torch.stack((right[:, 0].sum(), right.any(1).sum())).cpu()
        top1, top5 = (hits / len(self._held_out)).tolist()
        return Scores(top1, top5)


def open_inherited(supernet: Path, data: str | None = None) -> InheritedAccuracy:
    """That of a trained supernet's folder; `data`: text of the source where the images lie elsewhere now."""
    network, info = load_supernet(supernet)
    return InheritedAccuracy(network, info, reopen_data(info, data))
