"""What a classifier says of images, kept image by image, so that two classifiers can be compared on each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from luts.estimate.proportion import Proportion
from luts.format.errors import InvalidArtifactError

KEPT = 5
"""Guesses that are kept of an image: top-5 needs them."""


@dataclass(frozen=True, eq=False)
class Guesses:
    """The likeliest outputs of a classifier, by its logits.

    Attributes:
        first: (N, k) int32, of each image the indices of the k largest logits, the largest first; k is `KEPT`, or
            `outputs` where that is less.
        outputs: How many the classifier has.
    """

    first: np.ndarray
    outputs: int

    def right(self, expected: np.ndarray, among: int = 1) -> np.ndarray:
        """(N,) bool: whether the output that is `expected` (N,) of an image is one of the first `among`."""
        right: np.ndarray = (self.first[:, :among] == expected[:, None]).any(1)
        return right

    def accuracy(self, expected: np.ndarray, among: int = 1) -> Proportion:
        """The share of images that it gets right."""
        return Proportion(int(self.right(expected, among).sum()), len(self.first))

    def agreement(self, other: Guesses) -> Proportion:
        """The share of images of which another classifier's first guess is the same."""
        return Proportion(int((self.first[:, 0] == other.first[:, 0]).sum()), len(self.first))


Keep = Callable[[Guesses], object]
"""Called with all guesses so far, those of the first images in order, whenever there are more."""


def guesses_of(logits: np.ndarray) -> np.ndarray:
    """`Guesses.first` of logits (N, outputs); of equal ones the lower index is first.

    Raises:
        InvalidArtifactError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise InvalidArtifactError("its logits are not finite; export it again, or with another precision")
    return np.argsort(-logits, axis=1, kind="stable")[:, :KEPT].astype(np.int32)
