"""The cost of a block from its features, and the similarity of blocks; for the fit, planning and simulation.

    cost = constant + a * MACs but those of depthwise convolutions + b * those + c * bytes moved

with coefficients by kind of block (`schema.Coefficients`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from luts.format.schema import MIB, MMAC, Coefficients, Floats, KeyFeatures

WEIGHT_BYTES = 8
"""Bytes that a parameter adds to those that a block moves. A weight has 4 bytes, and comes from further away
than activations do: design networks of `autovit-xxs` (x86, one thread) were predicted from 20 others within
0.93 % with twice its size, within 1.11 % with weights left out; once and three times were between."""

KERNEL_LENGTH = 0.5
"""Distance, in natural logarithms of features, over which entries deviate from physics together: blocks half
again as large deviate much alike, those three times as large hardly. In a trial with 91 blocks of
`autovit-xxs` timed alone, put together to random networks with a misfit, a quarter and two did worse from 20
and from 60 networks."""

BASE_SHARE_SD = 0.2
"""Prior deviation of the base term, as a fraction of the mean latency: the cost of a call before any block
runs is small compared with a network, and where every model has the same stem and head only this separates
them from it."""
SCALE_FLOOR_SHARE = 0.05
"""An entry may stray from physics by at least this fraction of an average block: one expected near 0 is not
known to be 0."""

TERMS = len(Coefficients.model_fields)


def coefficients_of(values: Floats) -> Coefficients:
    """Return coefficients from numbers (TERMS,) in the order of the fields."""
    return Coefficients(**dict(zip(Coefficients.model_fields, map(float, values), strict=True)))


def amounts(feature: KeyFeatures) -> tuple[float, float, float, float]:
    """Return how often each coefficient, in the order of the fields, enters a block's cost."""
    dense_macs = feature.macs - feature.depthwise_macs
    moved_bytes = feature.traffic_bytes + WEIGHT_BYTES * feature.params
    return 1.0, dense_macs / MMAC, feature.depthwise_macs / MMAC, moved_bytes / MIB


def physics_ms(feature: KeyFeatures, price: Coefficients) -> float:
    """Return a block's cost in ms."""
    prices = [float(getattr(price, name)) for name in Coefficients.model_fields]
    return sum(each * amount for each, amount in zip(prices, amounts(feature), strict=True))


def count_blocks(keys: Sequence[str], networks: Sequence[Sequence[str]]) -> Floats:
    """Return (m, k) how often each network has each block. Raises KeyError: a block that is not in `keys`."""
    index = {key: position for position, key in enumerate(keys)}
    counts = np.zeros((len(networks), len(keys)))
    for row, blocks in enumerate(networks):
        for key, times in Counter(blocks).items():
            counts[row, index[key]] = times
    return counts


def coefficient_sizes(totals: Floats, mean_ms: float) -> Floats:
    """Return (TERMS,) each coefficient's size if its amount alone explained networks of `mean_ms` on average.

    It is 0 where they have none of the amount. `totals` (m, TERMS) are the networks' amounts.
    """
    mean = totals.mean(axis=0)
    return np.asarray(np.where(mean == 0, 0.0, mean_ms / np.maximum(mean, 1e-12)))


def scale_floor(counts: Floats, mean_ms: float) -> float:
    """Return the smallest scale of an entry's deviation, ms, given the blocks (m, k) of networks."""
    return SCALE_FLOOR_SHARE * mean_ms / max(float(counts.sum(axis=1).mean()), 1.0)


def kernel(keys: Sequence[str], features: Mapping[str, KeyFeatures]) -> Floats:
    """Return (k, k) covariance of the deviations that similar blocks share: 1 if equal, 0 across kinds.

    A Gaussian process, squared exponential in the logarithms of MACs, traffic and parameters (Rasmussen and
    Williams 2006, 4.2): where a block of 24 channels at 128 px costs more than its kind's coefficients say,
    so does its sibling with the other kernel size.
    """
    rows = [features[key] for key in keys]
    sizes = np.array([[row.macs, row.traffic_bytes, row.params] for row in rows], dtype=np.float64)
    logs = np.log(np.maximum(sizes, 1.0))
    squared = ((logs[:, None, :] - logs[None, :, :]) ** 2).sum(axis=-1)
    kinds = np.array([row.kind for row in rows])
    same = kinds[:, None] == kinds[None, :]
    return np.asarray(np.where(same, np.exp(-squared / (2 * KERNEL_LENGTH**2)), 0.0))
