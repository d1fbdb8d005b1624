"""Evaluation images, which model output is which class, and a classifier's predictions, cached as they arrive."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from luts.estimate.statistics import Proportion
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.files import storage_errors, write_atomically
from search.supernet.data.images import IMAGENET, ImageData, Normalization, split_source
from search.supernet.data.sources import MAX_CLASSES, ImageSource, open_source


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Some images of a source, and how a classifier sees them.

    Attributes:
        digest: Of the source; `data` refuses another.
        indices: (N,) of its images, in the order in which they are judged.
        side: Pixels to which images of mixed sizes are cut before they are scaled to a resolution.
        normalization: With which the classifier was trained.
    """

    source: str
    digest: str
    indices: np.ndarray
    side: int = 256
    normalization: Normalization = IMAGENET

    @cached_property
    def data(self) -> ImageData:
        """The images, opened in every process; raises like `open_source`, and UsageError if they have changed."""
        source = open_source(self.source)
        if source.digest != self.digest:
            raise UsageError(f"{self.source} has changed while it was read; start over", code="data_changed")
        return ImageData(source, largest_side=self.side)

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64."""
        labels: np.ndarray = self.data.source.labels[self.indices]
        return labels

    def batches(self, resolution: int, start: int, stop: int, size: int) -> Iterator[np.ndarray]:
        """Images (B, 3, resolution, resolution) float32, from `start` to `stop`; a damaged one is named."""
        for first in range(start, stop, size):
            indices = self.indices[first : min(first + size, stop)]
            yield self.data.batch(indices, resolution, self.normalization)[0].numpy()

    def __getstate__(self) -> dict[str, object]:
        """Without what is opened."""
        return {name: value for name, value in vars(self).items() if name != "data"}

    def seen_with(self, normalization: Normalization, side: int) -> ImageSet:
        """Return the same images as another classifier sees them."""
        return replace(self, normalization=normalization, side=side)


Part = Literal["validation", "search", "all"]
PARTS: tuple[Part, ...] = get_args(Part)


def choose_images(
    text: str,
    part: str = "validation",
    count: int | None = None,
    seed: int = 0,
    split: tuple[int, float] = (0, 0.1),
) -> tuple[ImageSet, ImageSource]:
    """Return the images of a part of a source, or a random sample of them, and the source.

    `validation` is the source's own validation set, else the tenth that `bench train` holds out of the search as
    well; `search` is the tenth that it holds out of training; or `all`. `split` has seed and fraction by which a
    training divided them.

    Raises:
        UsageError: there is no such part, or it has fewer images.
    """
    if part not in PARTS:
        raise UsageError(f"--split {part!r}: expected {', '.join(PARTS)}", code="unknown_split")
    source = open_source(text)
    if part == "all":
        indices = np.arange(len(source.labels))
    else:
        parts = split_source(source, *split)
        indices = parts.validation if part == "validation" else parts.search
    if count is not None:
        if not 1 <= count <= len(indices):
            raise UsageError(
                f"--images {count}: there are {len(indices)} in the {part} images of {text}",
                code="too_few_images",
            )
        indices = np.sort(np.random.default_rng(seed).permutation(indices)[:count])
    return ImageSet(text, source.digest, indices), source


IMAGENET_CLASSES = "imagenet"
MAX_NAMES_BYTES = 16 << 20
"""Room for a name of 256 bytes for each of the most classes."""


@dataclass(frozen=True)
class ClassNames:
    """Names of a classifier's outputs, in their order; `given` is the text of `--classes`."""

    given: str
    names: tuple[str, ...]


def class_names(given: str) -> ClassNames:
    """ImageNet's 1000 synsets (`n01440764`, ...) of `imagenet`, or the lines of a file.

    Raises:
        UsageError: a name comes twice, or there are none.
        InvalidArtifactError: the file can't be read.
    """
    if given == IMAGENET_CLASSES:
        from timm.data import ImageNetInfo  # brings torch

        return ClassNames(given, tuple(ImageNetInfo("imagenet-1k").label_names()))
    path = Path(given)
    try:
        if path.stat().st_size > MAX_NAMES_BYTES:
            raise InvalidArtifactError(
                f"--classes {given}: over {MAX_NAMES_BYTES >> 20} MiB; give one name per line",
                code="file_too_large",
            )
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidArtifactError(
            f"--classes {given}: cannot be read ({why}); give {IMAGENET_CLASSES}, or a file with one name per line",
            code="unreadable_file",
        ) from error
    if not 1 <= len(names) <= MAX_CLASSES:
        raise UsageError(
            f"--classes {given}: {len(names)} names; give one name per line, in the outputs' order",
            code="invalid_class_names",
        )
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UsageError(
            f"--classes {given}: {name!r} is listed {count} times; give each output its name",
            code="invalid_class_names",
        )
    return ClassNames(given, names)


def output_of_class(
    what: str, outputs: int, source: str, classes: Sequence[str], named: ClassNames | None
) -> np.ndarray:
    """Return the output of each class of the images, (classes,) int64.

    A classifier with as many outputs as `named` has names is of these; else one with an output for each class of
    the images was trained on them, in their order.

    Raises:
        UsageError: a class is none of the outputs, or nothing says which is which.
    """
    if named is not None and outputs == len(named.names):
        place = {name: number for number, name in enumerate(named.names)}
        if absent := [name for name in classes if name not in place]:
            raise UsageError(
                f"{what}: class {absent[0]!r} of {source} is not one of the {outputs} of --classes "
                f"{named.given} ({len(absent)} such in all); name the classes of the images as there",
                code="class_mismatch",
            )
        return np.array([place[name] for name in classes])
    if outputs == len(classes):
        return np.arange(outputs)
    beyond = f", labels go beyond them up to {len(classes) - 1}" if outputs < len(classes) else ""
    names_note = f", --classes {named.given} has {len(named.names)} names" if named else ""
    raise UsageError(
        f"{what} has {outputs} outputs and {source} {len(classes)} classes{beyond}{names_note}; name the outputs "
        f"with --classes {IMAGENET_CLASSES} (folders named n01440764 ...), or a file with a name per line",
        code="class_mismatch",
    )


TOP = 5
"""Predictions stored per image: top-5 accuracy needs them."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The likeliest outputs of a classifier for some images.

    Attributes:
        first: (N, k) int32, the indices of the k largest logits of each image, the largest first; k is `TOP`, or
            `outputs` where that is less.
        confidence: (N,) float64, the largest softmax probability; NaN from caches of older versions.
    """

    first: np.ndarray
    outputs: int
    confidence: np.ndarray

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
        first = np.argsort(-logits, axis=1, kind="stable")[:, :TOP].astype(np.int32)
        below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        return cls(first, logits.shape[1], 1 / np.exp(below).sum(axis=1))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.first)

    def followed_by(self, others: Predictions) -> Predictions:
        """Return these predictions and those for further images."""
        both = (
            np.concatenate((self.first, others.first)),
            np.concatenate((self.confidence, others.confidence)),
        )
        return Predictions(both[0], self.outputs, both[1])

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

MAX_CACHE_BYTES = 1 << 30
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
            if self.path.stat().st_size > MAX_CACHE_BYTES:
                raise ValueError(f"over {MAX_CACHE_BYTES >> 20} MiB")
            with safe_open(self.path, "np") as file:
                first, outputs = file.get_tensor("first"), int((file.metadata() or {})["outputs"])
                known = "confidence" in file.keys()
                confidence = file.get_tensor("confidence") if known else np.full(len(first), np.nan)
            if first.dtype != np.int32 or first.ndim != 2 or first.shape[1] != min(TOP, outputs):
                raise ValueError(f"{first.dtype}{first.shape} of {outputs} outputs")
            if not 1 <= len(first) <= self._most or not 0 <= first.min() <= first.max() < outputs:
                raise ValueError("predictions for other images")
            if confidence.shape != first.shape[:1] or ((confidence <= 0) | (confidence > 1)).any():
                raise ValueError("confidences that are not probabilities")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InvalidArtifactError(
                f"{self.path}: damaged predictions ({error}); remove the file", code="damaged_cache"
            ) from error
        return Predictions(first, outputs, confidence)

    def write(self, predictions: Predictions) -> None:
        """Write all predictions so far; raises StorageError."""
        if self.path is None:
            return
        from safetensors.numpy import save

        tensors = {"first": np.ascontiguousarray(predictions.first), "confidence": predictions.confidence}
        data = save(tensors, {"outputs": str(predictions.outputs)})
        with storage_errors(f"cannot write {self.path}", "choose another --output"):
            write_atomically(self.path, data)
