"""The images that classifiers are compared on, as a value that worker processes can be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from luts.format.errors import UsageError
from search.supernet.data.images import IMAGENET, ImageData, Normalization
from search.supernet.data.sources import open_source


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Some images of a source, and how a classifier sees them.

    Attributes:
        source: Text of the image source.
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
        """Opened anew in every process; raises like `open_source`, and `UsageError` where the images are others."""
        source = open_source(self.source)
        if source.digest != self.digest:
            raise UsageError(f"{self.source} has changed while it was read; begin anew")
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
        """The same images as another classifier sees them."""
        return replace(self, normalization=normalization, side=side)
