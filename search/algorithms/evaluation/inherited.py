"""The objective of a weight-shared supernet: the accuracy that an architecture inherits from it."""

from __future__ import annotations

from pathlib import Path

from luts.format.errors import UsageError
from search.algorithms.interfaces.objective import Objective
from search.algorithms.interfaces.objectives import register_objective
from search.algorithms.record.settings import INHERITED_ACCURACY


@register_objective(INHERITED_ACCURACY)
def inherited_accuracy(supernet: Path | None, data: str | None) -> Objective:
    """On the search split of the images that the supernet was trained on; `data`: where they lie now."""
    from search.supernet.inherit.evaluate import open_inherited  # brings in torch

    if supernet is None:
        raise UsageError(f"{INHERITED_ACCURACY} is that of a trained supernet; give its folder")
    return open_inherited(supernet, data)
