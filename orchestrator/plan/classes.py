"""LUTs for networks of another number of classes than was profiled."""

from __future__ import annotations

from luts.classifiers import with_classifiers
from luts.format.classes import classes_of
from luts.format.errors import UsageError
from luts.format.lut import Lut
from orchestrator.plan.features import features_of
from search.spaces.coverage import covered_space


def priced_for(lut: Lut, classes: int) -> Lut:
    """The LUT with prices of all that networks of so many classes hold; itself where these were measured.

    Only classifiers are priced anew, from physics (`luts.classifiers`), and only of a LUT that covers its space.

    Raises:
        UsageError: `classes` is not a number of classes.
    """
    if classes < 1:
        raise UsageError(f"{classes} classes; give 1 or more")
    try:
        space = covered_space(lut)
    except UsageError:
        return lut
    known = {entry.key for entry in lut.entries}
    blocks = space.with_classes(classes).block_specs()
    missing = [block for block in blocks if block.key not in known]
    if not missing or any(classes_of(block.key) != classes for block in missing):
        return lut
    return with_classifiers(lut, features_of(missing))


def said_of(lut: Lut, priced: Lut, classes: int) -> str:
    """What `priced_for` did to a LUT, in one line; "" where nothing."""
    added = {entry.key for entry in priced.entries} - {entry.key for entry in lut.entries}
    if not added:
        return ""
    arm_ms = max(priced.latency_model.costs[key].half_width_ms for key in added)
    return (
        f"note: the LUT measured classifiers of {covered_space(lut).default_classes} classes; those of {classes} "
        f"follow from its physics, within {arm_ms:.3f} ms; profile with --classes {classes} to measure them"
    )
