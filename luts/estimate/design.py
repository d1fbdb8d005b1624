"""Experimental design: what whole models identify before they are measured, and which are most informative."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from luts.estimate.likelihood import CALLS, USUAL_DEVIATIONS, FitData, design_of, prior_covariance
from luts.estimate.physics import (
    BASE_SHARE_SD,
    amounts,
    coefficient_sizes,
    coefficients_of,
    count_blocks,
    physics_ms,
    scale_floor,
)
from luts.estimate.sources import SourceEntries, with_sources
from luts.format.lut import Lut
from luts.format.schema import Coefficients, Floats, KeyFeatures

Identified = Literal["alone", "sum", "prior"]
"""`alone`: the models determine this entry; `sum`: only its sum with others; `prior`: no model has it."""

BASE = "base"
"""Name of the base term among partners."""

_TOLERANCE = 1e-6
"""Counts are small integers: what is not a null vector is far above rounding."""


def identify(keys: Sequence[str], fitted: Sequence[Sequence[str]]) -> dict[str, Identified]:
    """Return by key how well models with these blocks determine its entry."""
    held, counts = _counts(fitted)
    _, sizes, rows = np.linalg.svd(counts, full_matrices=True)
    null = rows[int((sizes > _TOLERANCE * sizes[0]).sum()) :].T  # combinations that change no row
    open_share = dict(zip(held, np.sqrt((null[1:] ** 2).sum(axis=1)).tolist(), strict=True))
    return {
        key: "prior" if key not in open_share else "sum" if open_share[key] > _TOLERANCE else "alone"
        for key in keys
    }


def partners(keys: Sequence[str], fitted: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return, for keys known only as a sum, the fewest other entries (or `base`) in that sum.

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
    """Return the keys that some model has, and (m, 1 + k) how often, the base first."""
    held = sorted({key for blocks in fitted for key in blocks})
    return held, np.column_stack([np.ones(len(fitted)), count_blocks(held, fitted)])


@dataclass(frozen=True)
class ExpectedCosts:
    """Costs of blocks to expect before they are measured.

    Attributes:
        source: Where the costs come from, for people.
        common: Physics of kinds of blocks without an entry in `kinds`.
        entry_ms: Milliseconds of single blocks, which replace their physics.
        unpriced: Features that the coefficients were fitted without: they count as 0 here too. Without
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
        """Return by key the features that the coefficients were fitted with."""
        update = dict.fromkeys(self.unpriced, 0)
        return {key: feature.model_copy(update=update) for key, feature in features.items()}

    def ms(self, features: Mapping[str, KeyFeatures]) -> dict[str, float]:
        """Return expected milliseconds by key, never 0."""
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
"""One core of a phone or laptop, fp32. It hardly affects which models are chosen, only the time estimate. It
must never change: a measurement resumes only if the same plan is made again."""


def expected_from_lut(lut: Lut, name: str) -> ExpectedCosts:
    """Return the costs in a LUT; blocks without an entry are priced by the priors of its kinds."""
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
"""Relative: how far entries stray from physics, and a kind's coefficients from those common to all. The joint
fit starts there too, and learns better values from the rows."""
COMMON_SD = 1.0
"""Relative: nothing is known of the device's speed."""
ROW_SD = 0.006
"""Relative error of a row: the misfit of additivity (about 0.4 %), and three loads of a quiet machine (0.45
%)."""


@dataclass
class Posterior:
    """Expected base and entries (1 + k,), ms, and their covariance, ms^2; the prior's before a row."""

    keys: tuple[str, ...]
    costs: Floats
    covariance: Floats

    def row(self, blocks: Sequence[str]) -> Floats:
        """Return (1 + k,) counts of base and entries divided by the expected latency."""
        counts = self._counts(blocks)
        return counts / float(counts @ self.costs)

    def model_ms(self, blocks: Sequence[str]) -> float:
        """Return the expected latency of a network."""
        return float(self._counts(blocks) @ self.costs)

    def learn(self, row: Floats) -> None:
        """Update the covariance as if a model with this row were measured (Sherman and Morrison)."""
        product = self.covariance @ row
        self.covariance = self.covariance - np.outer(product, product) / (ROW_SD**2 + float(row @ product))

    def relative_se(self) -> Floats:
        """Return (k,) standard errors of the entries relative to their expected values."""
        variance: Floats = np.maximum(np.diag(self.covariance)[1:], 0.0)
        return np.asarray(np.sqrt(variance) / np.maximum(self.costs[1:], 1e-9))

    def _counts(self, blocks: Sequence[str]) -> Floats:
        return np.append(1.0, count_blocks(self.keys, [blocks]))


def prior_from_physics(
    features: Mapping[str, KeyFeatures], expectation: ExpectedCosts, typical: Sequence[Sequence[str]]
) -> Posterior:
    """Return the prior that expected costs give before anything is measured.

    `typical` networks are like those that will be predicted: they give the sizes of the prior.
    """
    keys = tuple(sorted(features))
    expected, priced = expectation.ms(features), expectation.priced(features)
    expected_ms = np.array([expected[key] for key in keys])
    costs = np.concatenate([[expectation.base_ms], expected_ms])
    counts = count_blocks(keys, typical)
    mean_ms = float((np.column_stack([np.ones(len(counts)), counts]) @ costs).mean())
    scale = np.maximum(expected_ms, scale_floor(counts, mean_ms))
    physics = np.array([amounts(priced[key]) for key in keys])
    weighted = physics * coefficient_sizes(counts @ physics, mean_ms)
    kinds = np.array([features[key].kind for key in keys])
    same_kind = COMMON_SD**2 + KIND_SD**2 * (kinds[:, None] == kinds[None, :])
    covariance = np.zeros((1 + len(keys), 1 + len(keys)))
    covariance[0, 0] = (BASE_SHARE_SD * mean_ms) ** 2
    covariance[1:, 1:] = np.diag((ENTRY_SD * scale) ** 2) + same_kind * (weighted @ weighted.T)
    return Posterior(keys, costs, covariance)


def most_informative(posterior: Posterior, candidates: Floats, targets: Floats) -> int:
    """Return the candidate row that reduces the mean predictive variance of `targets` most (V-optimal, greedy).

    Rows (n, 1 + k). Its gain is z' S M S z / (z' S z + noise), with S the covariance and M the mean of x x'
    over the targets (Fedorov 1972; Seo et al. 2000 call the criterion ALC).
    """
    spread = candidates @ posterior.covariance
    onto = spread @ targets.T
    gain = (onto**2).mean(axis=1) / (np.einsum("ij,ij->i", spread, candidates) + ROW_SD**2)
    return int(np.argmax(gain))


def most_informative_first(
    posterior: Posterior, candidates: Floats, targets: Floats, count: int
) -> list[int]:
    """Return positions of `count` candidate rows, each the most informative after those before, and learn them."""
    left, chosen = list(range(len(candidates))), list[int]()
    for _ in range(count):
        chosen.append(left.pop(most_informative(posterior, candidates[left], targets)))
        posterior.learn(candidates[chosen[-1]])
    return chosen


def prior_from_sources(
    features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries], typical: Sequence[Sequence[str]]
) -> Posterior:
    """Return the prior that sources give before anything is measured, at the deviations usual between devices.

    The standard errors of the sources' own entries are left out: sources know the sums that networks are much
    better, and networks chosen for the entries' sake predicted a tenth worse in a simulation. `typical` as in
    `prior_from_physics`.
    """
    first = sources[0]
    keys = sorted(features)
    entry_ms = dict(zip(keys, first.filled(keys, features).tolist(), strict=True))
    ms = np.array([first.base_ms + sum(entry_ms[key] for key in blocks) for blocks in typical])
    data = FitData(ms, np.zeros((len(ms), len(ms))), tuple(map(tuple, typical)), np.zeros(len(ms)))
    design = with_sources(design_of(data, features), features, sources).with_exact_entries()
    covariance = prior_covariance(design, design.entry_scale(design.prior_mean), USUAL_DEVIATIONS)
    costs = np.vstack([design.call_design, design.physics]) @ design.prior_mean
    without_transfer = np.delete(np.arange(CALLS + len(keys)), 1)
    return Posterior(
        design.keys, costs[without_transfer], covariance[np.ix_(without_transfer, without_transfer)]
    )
