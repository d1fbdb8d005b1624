"""Which rows of costs no other row beats."""

from __future__ import annotations

import numpy as np

from luts.format.numbers import Floats, Integers

BLOCK = 512
"""Rows compared with all kept ones at a time where there are three costs or more."""


def skyline(costs: Floats) -> Integers:
    """Indices of the rows of (N, objectives) that no other is at most as large as in every column; of equal
    rows one. In lexicographic order of their costs."""
    order: Integers = np.lexsort(costs.T[::-1])
    if costs.shape[1] <= 2:
        last = costs[order, -1]
        before = np.concatenate([[np.inf], np.minimum.accumulate(last)[:-1]])
        kept: Integers = order[last < before]
        return kept
    kept = np.empty(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        block = block[~_dominated(costs[block], costs[kept])]
        earlier = np.tri(len(block), k=-1, dtype=np.bool_)
        beaten = (costs[block][None] <= costs[block][:, None]).all(axis=2) & earlier
        kept = np.concatenate([kept, block[~beaten.any(axis=1)]])
    return kept


def _dominated(rows: Floats, by: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    beaten = np.zeros(len(rows), np.bool_)
    for start in range(0, len(by), 8 * BLOCK):
        some = by[start : start + 8 * BLOCK]
        worse = np.ones((len(rows), len(some)), np.bool_)
        for column in range(rows.shape[1]):
            worse &= some[None, :, column] <= rows[:, column, None]
        beaten |= worse.any(axis=1)
    return beaten
