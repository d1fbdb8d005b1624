"""What a block's features say of its cost before it is measured, and how like two blocks are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luts.schema import KeyFeatures

Floats = NDArray[np.float64]

MMAC = 1e6
MIB = 2.0**20

WEIGHT_BYTES = 8
"""What a parameter adds to the bytes that a block moves. A weight has 4 bytes, and comes from further away than
activations do: design networks of `autovit-xxs` (x86, one thread) were predicted from 20 others within 0.93 % with
twice its size, within 1.11 % with weights left out; once and three times were between."""

LIKENESS_LENGTH = 0.5
"""Distance, in natural logarithms of features, over which entries' deviations from physics stay alike: blocks half
again as large are much alike, those three times as large hardly. In a trial with 91 blocks of `autovit-xxs` timed
alone, put together to random networks with a misfit, a quarter and two did worse from 20 and from 60 networks."""


@dataclass(frozen=True)
class KindCoefficients:
    """constant + ms_per_mmac * MACs but those of depthwise convolutions + ms_per_depthwise_mmac * those
    + ms_per_mib * bytes moved; a MAC of a depthwise convolution took four times one of a matrix product on x86."""

    constant_ms: float
    ms_per_mmac: float
    ms_per_depthwise_mmac: float
    ms_per_mib: float


TERMS = len(KindCoefficients.__dataclass_fields__)


def _row(feature: KeyFeatures) -> tuple[float, float, float, float]:
    return (
        1.0,
        (feature.macs - feature.depthwise_macs) / MMAC,
        feature.depthwise_macs / MMAC,
        moved_mib(feature),
    )


def moved_mib(feature: KeyFeatures) -> float:
    """Activations and weights that a block moves."""
    return (feature.traffic_bytes + WEIGHT_BYTES * feature.params) / MIB


def physics_matrix(keys: Sequence[str], kinds: Sequence[str], features: Mapping[str, KeyFeatures]) -> Floats:
    """(k, TERMS g): what each coefficient of each kind, in the order of KindCoefficients, adds to each key."""
    matrix = np.zeros((len(keys), TERMS * len(kinds)))
    for position, key in enumerate(keys):
        column = TERMS * kinds.index(features[key].kind)
        matrix[position, column : column + TERMS] = _row(features[key])
    return matrix


def likeness(keys: Sequence[str], features: Mapping[str, KeyFeatures]) -> Floats:
    """(k, k) correlation of what equal blocks have in common beyond physics: 1 for equal features, 0 across kinds.

    Squared exponential in the logarithms of MACs, traffic and parameters (Rasmussen and Williams 2006, 4.2): where
    a block of 24 channels at 128 px costs more than its kind's coefficients say, so does its sibling with the other
    kernel.
    """
    found = [features[key] for key in keys]
    sizes = np.array([[f.macs, f.traffic_bytes, f.params] for f in found], dtype=np.float64)
    logs = np.log(np.maximum(sizes, 1.0))
    squared = ((logs[:, None, :] - logs[None, :, :]) ** 2).sum(axis=-1)
    kinds = np.array([f.kind for f in found])
    same = kinds[:, None] == kinds[None, :]
    return np.asarray(np.where(same, np.exp(-squared / (2 * LIKENESS_LENGTH**2)), 0.0))
