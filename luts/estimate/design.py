"""What a set of whole models can identify, before one of them is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from luts.estimate.joint import USUAL, FitData, SourceEntries, design_of, prior_covariance, with_sources
from luts.estimate.physics import (
    BASE_SHARE_SD,
    amounts,
    coefficients_of,
    natural_sizes,
    physics_ms,
    scale_floor,
)
from luts.format.lut import Lut
from luts.format.schema import Coefficients, Floats, KeyFeatures

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


@dataclass(frozen=True)
class ExpectedCosts:
    """Latencies to expect.

    Attributes:
        source: Says for people where all this comes from.
        common: Physics of kinds of blocks that nothing more is known of.
        kinds: Physics of those that are known better.
        entry_ms: Blocks that are known better still.
        base_ms: Of a call before any block runs.
        unpriced: Features that the coefficients were made without: they count as 0 here too. Without
            `depthwise_macs` all MACs have one price, without `params` the bytes of weights have none.
        sources: Other devices' entries that the fit will rest on, so that networks are chosen for the rest.
    """

    source: str
    common: Coefficients
    kinds: Mapping[str, Coefficients] = field(default_factory=dict)
    entry_ms: Mapping[str, float] = field(default_factory=dict)
    base_ms: float = 0.0
    unpriced: Collection[str] = ()
    sources: tuple[SourceEntries, ...] = ()

    def priced(self, features: Mapping[str, KeyFeatures]) -> dict[str, KeyFeatures]:
        """By key the features that coefficients were made with."""
        update = dict.fromkeys(self.unpriced, 0)
        return {key: feature.model_copy(update=update) for key, feature in features.items()}

    def ms(self, features: Mapping[str, KeyFeatures]) -> dict[str, float]:
        """By key, never 0."""
        physics = {
            key: physics_ms(feature, self.kinds.get(feature.kind, self.common))
            for key, feature in self.priced(features).items()
        }
        return {key: max(self.entry_ms.get(key, ms), 1e-6) for key, ms in physics.items()}


TYPICAL_DEVICE = ExpectedCosts(
    "an assumption: 20 us a block, 50 GMAC/s, 10 GiB/s",
    Coefficients(constant_ms=0.02, ms_per_mmac=0.02, ms_per_mib=0.1),
    unpriced=("params", "depthwise_macs"),
)
"""One core of a phone or laptop, fp32. Which models to build hardly depends on it, how long they take does. It
never changes: a measurement goes on only if the same plan is made again."""


def expected_from_lut(lut: Lut, name: str) -> ExpectedCosts:
    """What a LUT says, also of blocks that it does not hold: by the priors of its kinds, with the features that its
    fit had."""
    kinds = {row.kind: Coefficients.of(row) for row in lut.meta.prior}
    means = np.mean([list(dict(row).values()) for row in kinds.values()], axis=0)
    return ExpectedCosts(
        f"LUT {name}",
        coefficients_of(means),
        kinds,
        {entry.key: entry.ms for entry in lut.entries},
        lut.meta.base_ms,
        [name for name in ("params", "depthwise_macs") if not any(getattr(row, name) for row in lut.entries)],
    )


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
        expectation: ExpectedCosts,
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


def most_informative(posterior: Posterior, candidates: Floats, targets: Floats) -> int:
    """The candidate row that takes most off the mean predictive variance of `targets` (V-optimal, greedy).

    Rows (n, 1 + k). Its gain is z' S M S z / (z' S z + noise), with S the covariance and M the mean of x x' over
    the targets (Fedorov 1972; Seo et al. 2000 call the criterion ALC).
    """
    spread = candidates @ posterior.covariance
    onto = spread @ targets.T
    gain = (onto**2).mean(axis=1) / (np.einsum("ij,ij->i", spread, candidates) + ROW_SD**2)
    return int(np.argmax(gain))


def most_informative_first(
    posterior: Posterior, candidates: Floats, targets: Floats, count: int
) -> list[int]:
    """Positions of `count` candidate rows, each the most useful after those before; the posterior learns them."""
    left, chosen = list(range(len(candidates))), list[int]()
    for _ in range(count):
        chosen.append(left.pop(most_informative(posterior, candidates[left], targets)))
        posterior.learn(candidates[chosen[-1]])
    return chosen


def prior_from_sources(
    features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries], typical: Sequence[Sequence[str]]
) -> Posterior:
    """What sources say before anything is measured, at the deviations that are usual between devices.

    Without what sources do not know of their own entries: they know the sums that networks are much better, and
    networks chosen for the entries' sake predicted a tenth worse in a simulation.

    Args:
        features: Of all keys.
        sources: At least one.
        typical: Networks as they will be predicted.
    """
    first = sources[0]
    keys = sorted(features)
    entry_ms = dict(zip(keys, first.filled(keys, features).tolist(), strict=True))
    ms = np.array([first.base_ms + sum(entry_ms[key] for key in blocks) for blocks in typical])
    rows = FitData(ms, np.zeros((len(ms), len(ms))), tuple(map(tuple, typical)), np.zeros(len(ms)))
    design = replace(with_sources(design_of(rows, features), features, sources), doubt=None)
    scale = np.maximum(design.physics @ design.common, design.floor)
    covariance = prior_covariance(design, scale, USUAL)
    costs = np.concatenate([design.of_calls @ design.common, design.physics @ design.common])
    return Posterior.of(design.keys, np.delete(costs, 1), np.delete(np.delete(covariance, 1, 0), 1, 1))
