"""Where a runtime put a model's operations, and which of them a removed block sent elsewhere.

Names of operations change from one conversion to the next, so that two programs are compared as sequences of types.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.journal.records import PlacedType

_MATCH = 1 << 20
"""Worth of a pair of one type; beyond any number of pairs on one unit, which count 1 each."""


def migrated_operations(base: Sequence[PlacedType], removal: Sequence[PlacedType]) -> int:
    """How many operations of `removal` run on another compute unit than their counterparts in `base`.

    Counterparts are those of an alignment with the most pairs of equal type in order and, among such alignments,
    the most pairs on the same unit. So no migration is counted that another reading of the programs explains away:
    of two equal layers, either may be the one that was removed.
    """
    before, after = _differing(base, removal)
    units = np.array([unit for _, unit in after])
    types = np.array([kind for kind, _ in after])
    # Longest common subsequence, weighted; a row for each operation of the base.
    best = np.zeros(len(after) + 1, dtype=np.int64)
    for kind, unit in before:
        worth = np.where(types == kind, _MATCH + (units == unit), 0)
        best[1:] = np.maximum(best[1:], best[:-1] + worth)
        np.maximum.accumulate(best, out=best)
    pairs, stayed = divmod(int(best[-1]), _MATCH)
    return pairs - stayed


def _differing(
    base: Sequence[PlacedType], removal: Sequence[PlacedType]
) -> tuple[Sequence[PlacedType], Sequence[PlacedType]]:
    """Both without their common beginning and end, which are counterparts in some best alignment."""
    shorter = min(len(base), len(removal))
    start = next((i for i in range(shorter) if base[i] != removal[i]), shorter)
    left = shorter - start
    end = next((i for i in range(left) if base[-1 - i] != removal[-1 - i]), left)
    return base[start : len(base) - end], removal[start : len(removal) - end]
