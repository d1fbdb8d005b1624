"""The objectives of a weight-shared supernet: how well an architecture does with the weights that it inherits."""

from __future__ import annotations

from pathlib import Path

from luts.format.errors import UsageError
from search.algorithms.interfaces.objective import Objective
from search.algorithms.interfaces.objectives import register_objective
from search.algorithms.record.settings import INHERITED_ACCURACY, INHERITED_LIKELIHOOD


@register_objective(INHERITED_ACCURACY)
def inherited_accuracy(supernet: Path | None, data: str | None) -> Objective:
    """On the search split of the images that the supernet was trained on; `data`: where they lie now."""
    from search.supernet.inherit.evaluate import open_inherited  # brings in torch

    return open_inherited(_given(supernet, INHERITED_ACCURACY), data)


@register_objective(INHERITED_LIKELIHOOD)
def inherited_likelihood(supernet: Path | None, data: str | None) -> Objective:
    """On the same images, by the probability of their labels."""
    from search.supernet.inherit.evaluate import InheritedLikelihood, open_inherited

    return InheritedLikelihood(open_inherited(_given(supernet, INHERITED_LIKELIHOOD), data))


def _given(supernet: Path | None, objective: str) -> Path:
    if supernet is None:
        raise UsageError(f"{objective} is that of a trained supernet; give its folder")
    return supernet
