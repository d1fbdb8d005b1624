"""Accuracy of subnets with inherited weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from luts.errors import UsageError
from search.networks import Network
from search.spaces import Arch
from search.supernet.checkpoint import CheckpointInfo, load_supernet
from search.supernet.data import ImageData
from search.supernet.sources import open_source
from search.supernet.supernet import Supernet

CALIBRATION_IMAGES = 1024
"""Training images for BN statistics; on digits 512, 1024 and all 1439 agree within 0.6 %."""


def reopen_data(info: CheckpointInfo, source: str | None = None) -> ImageData:
    """The images that a supernet was trained on, split alike; `source` where they lie elsewhere now."""
    return ImageData(
        open_source(source or info.source), info.split_seed, info.split_fraction, info.image_side
    )


class InheritedAccuracy:
    """Top-1 of subnets on images held out of training: the search split, or, once at the end, validation."""

    def __init__(
        self,
        supernet: Supernet,
        info: CheckpointInfo,
        data: ImageData,
        *,
        final: bool = False,
        calibration_images: int = CALIBRATION_IMAGES,
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
        self._calibration = shuffled[:calibration_images]
        described = (info.weights_sha256, *trained_on, self.split_name, len(self._calibration), batch_size)
        self._fingerprint = hashlib.sha256(repr(described).encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """sha256 of everything besides the architecture that decides an accuracy."""
        return self._fingerprint

    def network(self, arch: Arch) -> Network:
        """The standalone network with inherited weights and BN statistics of its own, ready for inference."""
        network = self.supernet.extract(arch)
        batches = self.data.batches(self._calibration, arch.resolution, self.batch_size)
        recalibrate(network, (images for images, _ in batches))
        return network

    @torch.no_grad()
    def accuracy(self, arch: Arch) -> float:
        """Top-1 accuracy, 0 to 1."""
        network = self.network(arch)
        hits = sum(
            int((network(images).argmax(1) == labels).sum())
            for images, labels in self.data.batches(self._held_out, arch.resolution, self.batch_size)
        )
        return hits / len(self._held_out)

    def stream(self, archs: Sequence[Arch]) -> Iterator[tuple[Arch, float]]:
        """Each with its accuracy, one after another in this process."""
        for arch in archs:
            yield arch, self.accuracy(arch)


@dataclass(frozen=True)
class InheritedOpener:
    """How a worker of a pool opens the evaluator: checkpoint and images are read there, not sent to it.

    Attributes:
        checkpoint: Folder of the supernet.
        data: Text of the source where the images lie elsewhere than the checkpoint says.
    """

    checkpoint: Path
    data: str | None = None

    def open(self) -> InheritedAccuracy:
        """With one thread: a pool has a worker for each core."""
        torch.set_num_threads(1)
        supernet, info = load_supernet(self.checkpoint)
        return InheritedAccuracy(supernet, info, reopen_data(info, self.data))


@torch.no_grad()
def recalibrate(network: Network, batches: Iterable[Tensor]) -> None:
    """Set BN's running statistics to the mean over `batches`, and leave the network in inference mode.

    A supernet's statistics mix all subnets; each needs its own (BigNAS, Yu et al. 2020, section 3.4).
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for images in batches:
        network(images)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
