"""The images of a source, divided once by a fixed seed: for training, for the search, for a final evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from luts.format.errors import UsageError
from search.supernet.data.source import Source


@dataclass(frozen=True)
class Split:
    """Disjoint, sorted image indices.

    The validation set is for a final evaluation alone; everything on the way there, the search included,
    sees `train` and `search` only.
    """

    train: np.ndarray
    search: np.ndarray
    validation: np.ndarray


def split_source(source: Source, seed: int = 0, fraction: float = 0.1) -> Split:
    """Hold `fraction` of each class out for search and as much for validation, at least one image each.

    A source with a validation set of its own keeps it.

    Raises:
        UsageError: a class has too few images for that.
    """
    rng = np.random.default_rng(seed)
    total = len(source.labels)
    free = total if source.validation_from is None else source.validation_from
    parts: tuple[list[np.ndarray], ...] = ([], [], [np.arange(free, total)])
    for label, name in enumerate(source.classes):
        indices = rng.permutation(np.flatnonzero(source.labels[:free] == label))
        held_out = max(1, round(fraction * len(indices)))
        ends = [held_out, 2 * held_out if source.validation_from is None else held_out]
        if len(indices) <= ends[1]:
            raise UsageError(
                f"{source.name}: class {name!r} has {len(indices)} images, too few to split; add images"
            )
        search, validation, train = np.split(indices, ends)
        for part, chosen in zip(parts, (train, search, validation), strict=True):
            part.append(chosen)
    return Split(*(np.sort(np.concatenate(part)) for part in parts))
