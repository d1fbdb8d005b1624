"""Which images of a source classifiers are compared on."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from luts.format.errors import UsageError
from orchestrator.accuracy.images import ImageSet
from search.supernet.data.source import Source
from search.supernet.data.sources import open_source
from search.supernet.data.split import split_source

Part = Literal["validation", "search", "all"]
PARTS: tuple[Part, ...] = get_args(Part)


def choose_images(
    text: str,
    part: str = "validation",
    count: int | None = None,
    seed: int = 0,
    split: tuple[int, float] = (0, 0.1),
) -> tuple[ImageSet, Source]:
    """The images of a part of a source, or some of them by a seeded choice.

    Args:
        text: Of the source.
        part: `validation`: the source's own validation set, else the tenth that `bench train` holds out of the
            search as well; `search`: the tenth that it holds out of training; or `all`.
        count: How many; all of the part by default.
        seed: Of the choice.
        split: Seed and share by which a training divided them.

    Raises:
        UsageError: there is no such part, or it has fewer images.
    """
    if part not in PARTS:
        raise UsageError(f"--split {part!r}: expected {', '.join(PARTS)}")
    source = open_source(text)
    if part == "all":
        indices = np.arange(len(source.labels))
    else:
        parts = split_source(source, *split)
        indices = parts.validation if part == "validation" else parts.search
    if count is not None:
        if not 1 <= count <= len(indices):
            raise UsageError(f"--images {count}: there are {len(indices)} in the {part} images of {text}")
        indices = np.sort(np.random.default_rng(seed).permutation(indices)[:count])
    return ImageSet(text, source.digest, indices), source
