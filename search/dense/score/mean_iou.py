"""Mean intersection over union of masks, by torchmetrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch

from search.dense.data.scene import VOID
from search.dense.packages import torchmetrics


@dataclass(frozen=True)
class Overlap:
    """Figures 0 to 1.

    Attributes:
        miou: Mean over the background and the classes that truth or guesses have.
        pixel_accuracy: Share of the pixels that are right.
    """

    miou: float
    pixel_accuracy: float

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of the figures, in the order of `to_dict`."""
        return tuple(field.name for field in fields(cls))

    def to_dict(self) -> dict[str, float | None]:
        """As JSON and tables have it."""
        return dict(vars(self))


def mean_iou(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: int) -> Overlap:
    """The figures of guessed and true masks, each uint8 (H, W); of all pixels of all images together.

    Args:
        pairs: Guess and truth of each image; pixels that are `VOID` in the truth do not count.
        classes: Of objects; the background is one more.

    Raises:
        UsageError: torchmetrics is not installed.
        ValueError: there are no images.
    """
    kinds = torchmetrics("classification")
    how = {"num_classes": classes + 1, "ignore_index": VOID, "validate_args": False}
    jaccard = kinds.MulticlassJaccardIndex(average="macro", **how)
    right = kinds.MulticlassAccuracy(average="micro", **how)
    none = True
    for guess, truth in pairs:
        pair = torch.from_numpy(np.array(guess)).long(), torch.from_numpy(np.array(truth)).long()
        jaccard.update(*pair)
        right.update(*pair)
        none = False
    if none:
        raise ValueError("no images")
    return Overlap(*(min(1.0, kind.compute().item()) for kind in (jaccard, right)))  # sums of fp32
