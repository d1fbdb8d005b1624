"""Predictions of a classifier image by image, cached on disk as they arrive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from luts.estimate.statistics import Proportion
from luts.format.errors import InvalidArtifactError
from luts.format.files import storage_error, write_atomically
from orchestrator.accuracy.images import ImageSet

TOP = 5
"""Predictions stored per image: top-5 accuracy needs them."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The likeliest outputs of a classifier for some images.

    Attributes:
        first: (N, k) int32, the indices of the k largest logits of each image, the largest first; k is `TOP`, or
            `outputs` where that is less.
    """

    first: np.ndarray
    outputs: int

    @classmethod
    def of_logits(cls, logits: np.ndarray) -> Predictions:
        """Return the predictions of logits (N, outputs); of equal logits the lower index is first.

        Raises:
            InvalidArtifactError: a logit is not finite.
        """
        if not np.isfinite(logits).all():
            raise InvalidArtifactError(
                "its logits are not finite; export it again, or with another precision",
                code="outputs_not_finite",
            )
        return cls(np.argsort(-logits, axis=1, kind="stable")[:, :TOP].astype(np.int32), logits.shape[1])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.first)

    def followed_by(self, others: Predictions) -> Predictions:
        """Return these predictions and those for further images."""
        return Predictions(np.concatenate((self.first, others.first)), self.outputs)

    def correct(self, expected: np.ndarray, among: int = 1) -> np.ndarray:
        """Return (N,) bool: whether the `expected` (N,) output of an image is one of the first `among`."""
        correct: np.ndarray = (self.first[:, :among] == expected[:, None]).any(1)
        return correct

    def accuracy(self, expected: np.ndarray, among: int = 1) -> Proportion:
        """Return the fraction of images whose expected output is one of the first `among`."""
        return Proportion(int(self.correct(expected, among).sum()), len(self))

    def agreement(self, other: Predictions) -> Proportion:
        """Return the fraction of images for which another classifier predicts the same."""
        return Proportion(int((self.first[:, 0] == other.first[:, 0]).sum()), len(self))


OnPredictions = Callable[[Predictions], object]
"""Called with all predictions so far, of the first images in order, whenever there are more."""

MAX_BYTES = 1 << 30
"""Far more than the predictions for all of ImageNet."""


class PredictionCache:
    """File with a classifier's predictions for a set of images; without a folder nothing is cached."""

    def __init__(self, folder: Path | None, classifier: str, images: ImageSet):
        """Name the file after `classifier` (such as a model file's digest) and the images."""
        identity = [
            classifier,
            images.digest,
            hashlib.sha256(np.ascontiguousarray(images.indices).data).hexdigest(),
            images.side,
            asdict(images.normalization),
        ]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        self.path = folder / "guesses" / f"{digest[:24]}.safetensors" if folder else None
        self._most = len(images.indices)

    def read(self) -> Predictions | None:
        """Return the cached predictions, None without any; raises InvalidArtifactError if they are damaged."""
        if self.path is None or not self.path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ValueError(f"over {MAX_BYTES >> 20} MiB")
            with safe_open(self.path, "np") as file:
                first, outputs = file.get_tensor("first"), int((file.metadata() or {})["outputs"])
            if first.dtype != np.int32 or first.ndim != 2 or first.shape[1] != min(TOP, outputs):
                raise ValueError(f"{first.dtype}{first.shape} of {outputs} outputs")
            if not 1 <= len(first) <= self._most or not 0 <= first.min() <= first.max() < outputs:
                raise ValueError("predictions for other images")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InvalidArtifactError(
                f"{self.path}: damaged predictions ({error}); remove the file", code="damaged_cache"
            ) from error
        return Predictions(first, outputs)

    def write(self, predictions: Predictions) -> None:
        """Write all predictions so far; raises StorageError."""
        if self.path is None:
            return
        from safetensors.numpy import save

        data = save({"first": np.ascontiguousarray(predictions.first)}, {"outputs": str(predictions.outputs)})
        try:
            write_atomically(self.path, data)
        except OSError as error:
            raise storage_error(f"cannot write {self.path}", error, "choose another --output") from error
