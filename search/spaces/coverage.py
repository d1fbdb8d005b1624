"""Which part of a space a LUT knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luts.format.errors import UsageError
from luts.format.schema import classes_of
from search.spaces.registry import get_space
from search.spaces.space import Space

if TYPE_CHECKING:
    from luts.format.lut import Lut


def covered_space(lut: Lut, classes: int | None = None) -> Space:
    """The LUT's space at the resolutions that it covers, for `classes` or as many as it was profiled with.

    Raises:
        UsageError: the space has changed since, or blocks are missing; names some.
    """
    space = get_space(lut.meta.space)
    if lut.meta.space_hash not in space.digests:
        raise UsageError(
            f"the LUT is of another version of {space.name} ({lut.meta.space_hash[:8]}, now {space.digest[:8]}); "
            "profile the space again"
        )
    known = {entry.key for entry in lut.entries}
    if classes is None:
        classes = _profiled_classes(lut)
    covered = tuple(r for r in space.resolutions if any(key.endswith(f"@{r}") for key in known))
    if not covered:
        raise UsageError(f"the LUT covers no resolution of {space.name}, which has {list(space.resolutions)}")
    part = space.with_classes(classes).restricted(covered)
    missing = [block.key for block in part.block_specs() if block.key not in known]
    if missing:
        raise UsageError(
            f"the LUT lacks {len(missing)} blocks of {space.name}, {missing[0]} among them; "
            f"profile with --classes {classes}"
        )
    return part


def _profiled_classes(lut: Lut) -> int:
    """Those of the reference, where a LUT holds classifiers of several numbers of classes."""
    known = [number for entry in lut.entries if (number := classes_of(entry.key)) is not None]
    if not known:
        raise UsageError("the LUT has no classifier; profile the space again")
    return next((number for key in lut.reference.blocks if (number := classes_of(key)) in known), known[0])
