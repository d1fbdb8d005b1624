"""Evaluation images: the sample of a source, and which model output is which class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from search.supernet.data.images import IMAGENET, ImageData, Normalization, split_source
from search.supernet.data.sources import MAX_CLASSES, Source, open_source


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
) -> tuple[ImageSet, Source]:
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
MAX_BYTES = 16 << 20
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
        if path.stat().st_size > MAX_BYTES:
            raise InvalidArtifactError(
                f"--classes {given}: over {MAX_BYTES >> 20} MiB; give one name per line",
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
