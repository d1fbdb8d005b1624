"""Accuracy of subnets with inherited weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from luts.format.errors import UsageError
from search.networks import Network
from search.spaces import Arch
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source
from search.supernet.inherit.prefixes import PrefixCache, PrefixRun
from search.supernet.inherit.recalibrate import recalibrate
from search.supernet.model.device import choose_device
from search.supernet.model.supernet import Supernet, stage_ends
from search.supernet.recipe.scope import check_trained
from search.supernet.train.checkpoint import load_supernet
from search.supernet.train.checkpoint_info import CheckpointInfo
from search.supernet.train.precision import computes_in_bf16

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
    """Accuracy of subnets on images held out of training: the search split, or, once at the end, validation.

    What was trained in bf16 is judged in it where the device computes in it, everything else in fp32.
    """

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
        self._compute_on(torch.device("cpu"))
        self._described = (
            info.weights_sha256,
            *trained_on,
            self.split_name,
            len(self._calibration),
            batch_size,
        )

    def move_to(self, on: str | torch.device, worker: int = 0) -> None:
        """Compute there from now on, one of `DEVICES`; `UsageError` where there is none."""
        self._compute_on(choose_device(on, worker) if isinstance(on, str) else on)
        self.supernet.to(self.device)

    def _compute_on(self, device: torch.device) -> None:
        self.device = device
        self.prefixes, self._judged = PrefixCache(), PrefixCache()
        recipe = self.info.recipe
        self._layout = torch.channels_last if recipe.channels_last else torch.preserve_format
        self._bf16 = recipe.precision == "bf16" and computes_in_bf16(device)

    @property
    def held_out(self) -> np.ndarray:
        """Indices of the images that are judged on."""
        return self._held_out

    @property
    def fingerprint(self) -> str:
        """sha256 of everything besides the architecture that decides an accuracy; devices round differently."""
        described = self._described if self.device.type == "cpu" else (*self._described, self.device.type)
        described = (*described, "bf16") if self._bf16 else described
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def network(self, arch: Arch) -> Network:
        """The standalone network with inherited weights and BN statistics of its own, on `device` for inference.

        Raises:
            UsageError: of another space, or another than the one that was trained alone.
        """
        check_trained(arch, self.info.recipe, self.supernet.space)
        path = self.supernet.path(arch)
        network = self.supernet.extract(arch).to(self.device)
        network.to(memory_format=self._layout)
        with self._autocast():
            recalibrate(
                network,
                self._images(self._calibration, arch.resolution),
                (arch.resolution, *path),
                stage_ends(path),
                self.prefixes,
            )
        network.to(memory_format=torch.contiguous_format)
        return network

    def accuracy(self, arch: Arch) -> float:
        """Top-1 accuracy, 0 to 1."""
        return self.scores(arch).top1

    def scores(self, arch: Arch) -> Scores:
        """Top-1 and top-5 on the held-out images; with fewer than five classes all of them count."""
        logits, labels = self.answers(arch)
        right = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
        return Scores(int(right[:, 0].sum()) / len(labels), int(right.any(1).sum()) / len(labels))

    @torch.no_grad()
    def answers(self, arch: Arch) -> tuple[Tensor, Tensor]:
        """Logits (N, classes) for the held-out images, fp32 or bf16, and their labels (N,)."""
        network, path = self.network(arch), self.supernet.path(arch)
        network.to(memory_format=self._layout)
        run = PrefixRun(network, (arch.resolution, *path), stage_ends(path), self._judged)
        with self._autocast():
            logits = torch.cat(list(run.outputs(self._images(self._held_out, arch.resolution))))
        run.keep(lambda _: {})
        return logits, self.data.labels[torch.from_numpy(self._held_out)].to(self.device)

    def _images(self, indices: np.ndarray, resolution: int) -> Iterator[Tensor]:
        for images, _ in self.data.batches(indices, resolution, self.batch_size):
            yield images.to(self.device, memory_format=self._layout)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self._bf16 else nullcontext()


class InheritedLikelihood:
    """Judges by the probabilities of the labels, which tell networks apart that guess the same classes."""

    def __init__(self, inherited: InheritedAccuracy):
        self.inherited = inherited

    @property
    def fingerprint(self) -> str:
        """That of the accuracy, marked."""
        return hashlib.sha256(f"likelihood {self.inherited.fingerprint}".encode()).hexdigest()

    def move_to(self, on: str | torch.device, worker: int = 0) -> None:
        """As of `InheritedAccuracy`."""
        self.inherited.move_to(on, worker)

    def accuracy(self, arch: Arch) -> float:
        """Geometric mean of the labels' probabilities: exp of minus the cross-entropy, 0 to 1."""
        logits, labels = self.inherited.answers(arch)
        return math.exp(-float(F.cross_entropy(logits.float(), labels)))


def open_inherited(supernet: Path, data: str | None = None) -> InheritedAccuracy:
    """That of a trained supernet's folder; `data`: text of the source where the images lie elsewhere now."""
    network, info = load_supernet(supernet)
    return InheritedAccuracy(network, info, reopen_data(info, data))
