"""What a supernet of a study says of its networks, each asked once ever."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from search.algorithms import CachedEvaluator, InProcess
from search.spaces import Arch
from search.supernet.data.images import ImageData
from search.supernet.inherit import InheritedAccuracy, InheritedLikelihood
from search.supernet.train.checkpoint import load_supernet
from tools.studies._supernets import Training

CALIBRATION_BATCHES = 8
"""Of 128 training images, for BN statistics."""


@dataclass(frozen=True)
class Judges:
    """What networks inherit: their top-1, and the mean probability of the labels (`InheritedLikelihood`)."""

    accuracy: CachedEvaluator
    likelihood: CachedEvaluator


class OnceEach(InheritedAccuracy):
    """Asked for one network by two judges in turn, it runs it once."""

    _last: tuple[Arch, tuple[Tensor, Tensor]] | None = None

    def answers(self, arch: Arch) -> tuple[Tensor, Tensor]:
        """Those of the last call where the network is the same."""
        if self._last is None or self._last[0] != arch:
            self._last = arch, super().answers(arch)
        return self._last[1]


def judges(
    training: Training,
    images: ImageData,
    on: str = "cpu",
    worker: int = 0,
    batches: int = CALIBRATION_BATCHES,
) -> Judges:
    """Of a supernet that is trained, by images of its search split; what they said is kept beside it.

    Args:
        on: `auto`, `cpu`, `cuda` or `mps`, for the worker of that number.
        batches: Of training images, for BN statistics.
    """
    supernet, info = load_supernet(training.folder)
    inherited = OnceEach(supernet, info, images, calibration_batches=batches)
    inherited.move_to(on, worker)
    count = len(images.split.search)
    return Judges(
        CachedEvaluator(InProcess(inherited), training.folder / f"accuracy-{count}.jsonl"),
        CachedEvaluator(
            InProcess(InheritedLikelihood(inherited)), training.folder / f"likelihood-{count}.jsonl"
        ),
    )
