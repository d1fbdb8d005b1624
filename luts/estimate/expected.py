"""What a set of whole models would tell of every block, before one of them is measured.

The Bayesian model of the joint fit (`joint.py`) with its usual deviations in place of learned ones:

    y_m = base + sum_k n_mk e_k, seen with a relative error of ROW_SD
    e_k = physics(k) + delta_k,   delta_k ~ N(0, (ENTRY_SD * expected_k)^2)

and physics' coefficients uncertain in two layers, common to all kinds and of one kind. All of it is Gaussian, so
the covariance after a row needs the row alone, not its latency. Every row is divided by its expected latency:
noise is relative, a small network tells as much of its blocks as a large one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from luts.lut import Lut
from luts.schema import KeyFeatures

Floats = NDArray[np.float64]

MMAC = 1e6
MIB = 2.0**20

ENTRY_SD = 0.15
KIND_SD = 0.3
"""Relative: how far entries stray from physics, and a kind's coefficients from those common to all. The joint fit
starts there too, and learns better values from the rows."""
COMMON_SD = 1.0
"""Relative: nothing is known of the device's speed."""
BASE_SHARE_SD = 0.2
"""Of the mean latency, as in the joint fit."""
ROW_SD = 0.006
"""Relative error of a row: what does not add up (about 0.4 %), and three loads of a quiet machine (0.45 %)."""
SCALE_FLOOR_SHARE = 0.05
"""Of an average block: a block expected near 0 is not known to be 0."""


@dataclass(frozen=True)
class Expectation:
    """Latencies to expect: constant ms, ms per 10^6 MACs, ms per MiB of activations.

    `kinds` are those of kinds that are known better, with ms per 10^6 MACs of depthwise convolutions third.
    `entry_ms` are entries that are known better; `source` says for people where all this comes from.
    """

    source: str
    common: tuple[float, float, float]
    kinds: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)
    entry_ms: Mapping[str, float] = field(default_factory=dict)
    base_ms: float = 0.0

    def ms(self, features: Mapping[str, KeyFeatures]) -> dict[str, float]:
        """By key, never 0."""
        found = {}
        for key, feature in features.items():
            constant, per_mmac, per_mib = self.common
            constant, per_mmac, per_depthwise, per_mib = self.kinds.get(
                feature.kind, (constant, per_mmac, per_mmac, per_mib)
            )
            dense, depthwise = feature.macs - feature.depthwise_macs, feature.depthwise_macs
            physics = constant + (per_mmac * dense + per_depthwise * depthwise) / MMAC
            physics += per_mib * feature.traffic_bytes / MIB
            found[key] = max(self.entry_ms.get(key, physics), 1e-6)
        return found


TYPICAL = Expectation("an assumption: 20 us a block, 50 GMAC/s, 10 GiB/s", (0.02, 0.02, 0.1))
"""One core of a phone or laptop, fp32. Which models to build hardly depends on it, how long they take does."""


def expectation_of(lut: Lut, name: str) -> Expectation:
    """What a LUT says, also of blocks that it does not hold: by the priors of its kinds."""
    kinds = {
        row.kind: (row.constant_ms, row.ms_per_mmac, row.ms_per_depthwise_mmac, row.ms_per_mib)
        for row in lut.meta.prior
    }
    means = np.mean(list(kinds.values()), axis=0)
    return Expectation(
        f"LUT {name}",
        (float(means[0]), float(means[1]), float(means[3])),
        kinds,
        {entry.key: entry.ms for entry in lut.entries},
        lut.meta.base_ms,
    )


class Knowledge:
    """What is known of base (index 0) and entries (1 + position in `keys`): covariance in ms^2.

    `typical` are networks as they will be predicted: they give the sizes of the prior.
    """

    def __init__(
        self,
        features: Mapping[str, KeyFeatures],
        expectation: Expectation,
        typical: Sequence[Sequence[str]],
    ):
        self.keys = tuple(sorted(features))
        self._index = {key: 1 + position for position, key in enumerate(self.keys)}
        expected = expectation.ms(features)
        self.expected_ms: Floats = np.array([expected[key] for key in self.keys])
        self._base_ms = expectation.base_ms
        counts = np.stack([self._counts(blocks) for blocks in typical])
        mean_ms = float((counts @ self._costs()).mean())
        floor = SCALE_FLOOR_SHARE * mean_ms / max(float(counts[:, 1:].sum(axis=1).mean()), 1.0)
        scale = np.maximum(self.expected_ms, floor)
        physics = np.array(
            [(1.0, features[key].macs / MMAC, features[key].traffic_bytes / MIB) for key in self.keys]
        )
        natural = mean_ms / np.maximum((counts[:, 1:] @ physics).mean(axis=0), 1e-12)
        kinds = np.array([features[key].kind for key in self.keys])
        weighted = physics * natural
        alike = COMMON_SD**2 + KIND_SD**2 * (kinds[:, None] == kinds[None, :])
        self.covariance: Floats = np.zeros((1 + len(self.keys), 1 + len(self.keys)))
        self.covariance[0, 0] = (BASE_SHARE_SD * mean_ms) ** 2
        self.covariance[1:, 1:] = np.diag((ENTRY_SD * scale) ** 2) + alike * (weighted @ weighted.T)

    def row(self, blocks: Sequence[str]) -> Floats:
        """(1 + k,) counts of base and entries divided by the expected latency."""
        counts = self._counts(blocks)
        return counts / float(counts @ self._costs())

    def model_ms(self, blocks: Sequence[str]) -> float:
        """Expected latency."""
        return float(self._counts(blocks) @ self._costs())

    def learn(self, row: Floats) -> None:
        """The covariance once a model with this row is measured (Sherman and Morrison)."""
        product = self.covariance @ row
        self.covariance = self.covariance - np.outer(product, product) / (ROW_SD**2 + float(row @ product))

    def relative_se(self) -> Floats:
        """(k,) standard errors of the entries relative to what they are expected to be."""
        variance: Floats = np.maximum(np.diag(self.covariance)[1:], 0.0)
        return np.asarray(np.sqrt(variance) / self.expected_ms)

    def _costs(self) -> Floats:
        return np.concatenate([[self._base_ms], self.expected_ms])

    def _counts(self, blocks: Sequence[str]) -> Floats:
        counts = np.zeros(1 + len(self.keys))
        counts[0] = 1.0
        for key in blocks:
            counts[self._index[key]] += 1.0
        return counts


def most_useful(knowledge: Knowledge, candidates: Floats, targets: Floats) -> int:
    """The candidate row that takes most off the mean predictive variance of `targets` (V-optimal, greedy).

    Rows (n, 1 + k). Its gain is z' S M S z / (z' S z + noise), with S the covariance and M the mean of x x' over
    the targets (Fedorov 1972; Seo et al. 2000 call the criterion ALC).
    """
    spread = candidates @ knowledge.covariance
    onto = spread @ targets.T
    gain = (onto**2).mean(axis=1) / (np.einsum("ij,ij->i", spread, candidates) + ROW_SD**2)
    return int(np.argmax(gain))
