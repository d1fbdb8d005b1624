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

import numpy as np

from luts.estimate.expected import Expectation
from luts.estimate.physics import BASE_SHARE_SD, amounts, natural_sizes, scale_floor
from luts.format.numbers import Floats
from luts.format.schema import KeyFeatures

ENTRY_SD = 0.15
KIND_SD = 0.3
"""Relative: how far entries stray from physics, and a kind's coefficients from those common to all. The joint fit
starts there too, and learns better values from the rows."""
COMMON_SD = 1.0
"""Relative: nothing is known of the device's speed."""
ROW_SD = 0.006
"""Relative error of a row: what does not add up (about 0.4 %), and three loads of a quiet machine (0.45 %)."""


class Posterior:
    """Of base (index 0) and entries (1 + position in `keys`): covariance in ms^2, the prior's until a row is
    learned.

    Args:
        features: Of all keys.
        expectation: What they are expected to cost.
        typical: Networks as they will be predicted: they give the sizes of the prior.
    """

    def __init__(
        self,
        features: Mapping[str, KeyFeatures],
        expectation: Expectation,
        typical: Sequence[Sequence[str]],
    ):
        self.keys = tuple(sorted(features))
        self._index = {key: 1 + position for position, key in enumerate(self.keys)}
        expected, priced = expectation.ms(features), expectation.priced(features)
        self.expected_ms: Floats = np.array([expected[key] for key in self.keys])
        self._costs: Floats = np.concatenate([[expectation.base_ms], self.expected_ms])
        counts = np.stack([self._counts(blocks) for blocks in typical])
        mean_ms = float((counts @ self._costs).mean())
        scale = np.maximum(self.expected_ms, scale_floor(counts[:, 1:], mean_ms))
        physics = np.array([amounts(priced[key]) for key in self.keys])
        weighted = physics * natural_sizes(counts[:, 1:] @ physics, mean_ms)
        kinds = np.array([features[key].kind for key in self.keys])
        alike = COMMON_SD**2 + KIND_SD**2 * (kinds[:, None] == kinds[None, :])
        self.covariance: Floats = np.zeros((1 + len(self.keys), 1 + len(self.keys)))
        self.covariance[0, 0] = (BASE_SHARE_SD * mean_ms) ** 2
        self.covariance[1:, 1:] = np.diag((ENTRY_SD * scale) ** 2) + alike * (weighted @ weighted.T)

    @classmethod
    def of(cls, keys: Sequence[str], costs: Floats, covariance: Floats) -> Posterior:
        """One that is known: expected base and entries in order of key (1 + k,), and their covariance."""
        posterior = cls.__new__(cls)
        posterior.keys = tuple(keys)
        posterior._index = {key: 1 + position for position, key in enumerate(keys)}
        posterior._costs, posterior.expected_ms = costs, np.maximum(costs[1:], 1e-9)
        posterior.covariance = covariance
        return posterior

    def row(self, blocks: Sequence[str]) -> Floats:
        """(1 + k,) counts of base and entries divided by the expected latency."""
        counts = self._counts(blocks)
        return counts / float(counts @ self._costs)

    def model_ms(self, blocks: Sequence[str]) -> float:
        """Expected latency."""
        return float(self._counts(blocks) @ self._costs)

    def learn(self, row: Floats) -> None:
        """The covariance once a model with this row is measured (Sherman and Morrison)."""
        product = self.covariance @ row
        self.covariance = self.covariance - np.outer(product, product) / (ROW_SD**2 + float(row @ product))

    def relative_se(self) -> Floats:
        """(k,) standard errors of the entries relative to what they are expected to be."""
        variance: Floats = np.maximum(np.diag(self.covariance)[1:], 0.0)
        return np.asarray(np.sqrt(variance) / self.expected_ms)

    def _counts(self, blocks: Sequence[str]) -> Floats:
        counts = np.zeros(1 + len(self.keys))
        counts[0] = 1.0
        for key in blocks:
            counts[self._index[key]] += 1.0
        return counts


def most_useful(posterior: Posterior, candidates: Floats, targets: Floats) -> int:
    """The candidate row that takes most off the mean predictive variance of `targets` (V-optimal, greedy).

    Rows (n, 1 + k). Its gain is z' S M S z / (z' S z + noise), with S the covariance and M the mean of x x' over
    the targets (Fedorov 1972; Seo et al. 2000 call the criterion ALC).
    """
    spread = candidates @ posterior.covariance
    onto = spread @ targets.T
    gain = (onto**2).mean(axis=1) / (np.einsum("ij,ij->i", spread, candidates) + ROW_SD**2)
    return int(np.argmax(gain))


def most_useful_first(posterior: Posterior, candidates: Floats, targets: Floats, count: int) -> list[int]:
    """Positions of `count` candidate rows, each the most useful after those before; the posterior learns them."""
    left, chosen = list(range(len(candidates))), list[int]()
    for _ in range(count):
        chosen.append(left.pop(most_useful(posterior, candidates[left], targets)))
        posterior.learn(candidates[chosen[-1]])
    return chosen
