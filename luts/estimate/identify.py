"""Which entries the fitted models can tell apart at all, whatever the noise.

Every row is base + sum_k n_k e_k. Where some combination of entries and base changes no row (a null vector of
the counts), no measurement of these models decides it: only the sum of those entries is known, and how it falls
apart rests on the prior. So it is with whatever all networks of a space share, its stem and its head, and with
blocks that hand over a width: what one of them loses, its neighbour of the same width wins. Predictions of the
space's networks need the sums alone. The transfer term is left out of this: the data moved is itself a sum over
blocks, so that its split from the entries always rests on the prior.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from luts.format.numbers import Floats

Identified = Literal["alone", "sum", "prior"]
"""`alone`: the models tell this entry; `sum`: only together with others; `prior`: no model holds it."""

BASE = "base"
"""Name of the base term among partners."""

_TOLERANCE = 1e-6
"""Counts are small integers: what is not a null vector is far above rounding."""


def identify(keys: Sequence[str], fitted: Sequence[Sequence[str]]) -> dict[str, Identified]:
    """By key what models with these blocks tell of it."""
    held, counts = _counts(fitted)
    null = _null_space(counts)
    open_share = dict(zip(held, np.sqrt((null[1:] ** 2).sum(axis=1)).tolist(), strict=True))
    return {
        key: "prior" if key not in open_share else "sum" if open_share[key] > _TOLERANCE else "alone"
        for key in keys
    }


def partners(keys: Sequence[str], fitted: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """By key (those known alone left out) the fewest other entries, or `base`, that it is known together with.

    They are the null vector of smallest absolute sum in which the key has weight 1: a linear program, whose
    solutions are sparse.
    """
    from scipy.optimize import linprog

    held, counts = _counts(fitted)
    together = [key for key, how in identify(keys, fitted).items() if how == "sum"]
    rows, size = np.unique(counts, axis=0), counts.shape[1]
    names, partners_of = (BASE, *held), {}
    for key in together:
        position = names.index(key)
        chosen = np.eye(1, size, position)
        system = np.vstack([np.hstack([rows, -rows]), np.hstack([chosen, -chosen])])
        target = np.append(np.zeros(len(rows)), 1.0)
        solved = linprog(np.ones(2 * size), A_eq=system, b_eq=target, method="highs-ds")
        weights = np.abs(solved.x[:size] - solved.x[size:])
        partners_of[key] = tuple(names[i] for i in np.flatnonzero(weights > _TOLERANCE) if i != position)
    return partners_of


def _counts(fitted: Sequence[Sequence[str]]) -> tuple[list[str], Floats]:
    """Keys that some model holds, and (m, 1 + k) how often, the base first."""
    held = sorted({key for blocks in fitted for key in blocks})
    index = {key: 1 + position for position, key in enumerate(held)}
    counts = np.zeros((len(fitted), 1 + len(held)))
    counts[:, 0] = 1.0
    for row, blocks in enumerate(fitted):
        for key, times in Counter(blocks).items():
            counts[row, index[key]] = times
    return held, counts


def _null_space(counts: Floats) -> Floats:
    """(1 + k, n) orthonormal combinations of base and entries that change no row."""
    _, sizes, rows = np.linalg.svd(counts, full_matrices=True)
    rank = int((sizes > _TOLERANCE * sizes[0]).sum())
    return np.asarray(rows[rank:].T)
