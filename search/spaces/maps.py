"""Which maps of a backbone a head takes: the last one, and of a detector those before it that are coarse enough."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from search.spaces.family import task_head
from search.spaces.layout import Stage

FIRST_STRIDE = 16
"""Of the first map that a detector predicts on (MobileNetV2, section 6.2; MobileViT, section 4.2.1)."""

_NONE: frozenset[int] = frozenset()


def tapped_stages(stages: Sequence[Stage], head: str) -> frozenset[int]:
    """Stages after which a head takes the map, the last one not among them; none for a classifier.

    Of stages that give maps of one size the last counts; of those sizes all from stride `FIRST_STRIDE` on, or the
    last two where fewer are as coarse (images of 32 or 64 px).

    Args:
        stages: Those of the network, in order.
        head: Its name.
    """
    known = task_head(head)
    if known is None or known.side is None:
        return _NONE
    return _coarse(tuple(int(dict(stage.fixed)["stride"]) for stage in stages))


@functools.lru_cache(maxsize=1024)
def _coarse(strides: tuple[int, ...]) -> frozenset[int]:
    last = len(strides) - 1
    ends = [index for index in range(len(strides)) if index == last or strides[index + 1] > 1]
    coarse = [index for index in ends if math.prod(strides[: index + 1]) >= FIRST_STRIDE]
    return frozenset(coarse if len(coarse) > 1 else ends[-2:]) - {last}


def map_sides(stages: Sequence[Stage], head: str, resolution: int) -> tuple[int, ...]:
    """Sides in pixels of the maps that a head takes of these stages, the last map's at the end."""
    sides, side = [], resolution
    tapped = tapped_stages(stages, head)
    for index, stage in enumerate(stages):
        side = stage.out_resolution(side)
        if index in tapped:
            sides.append(side)
    return (*sides, side)
