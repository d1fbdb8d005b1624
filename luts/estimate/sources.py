"""Other devices' entries as the prior of a joint fit, and which of them the measurements support."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from luts.estimate.likelihood import (
    BOUND,
    CALLS,
    FIXED,
    KIND,
    FitDesign,
    MarginalLikelihood,
    learn_deviations,
)
from luts.estimate.physics import TERMS, amounts
from luts.estimate.statistics import CONFIDENCE, normal_quantile
from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.schema import Floats, KeyFeatures

SOURCE_WEIGHT_SD = 0.5
"""How far the mean of several sources may move toward one of them."""

CALL_SHARE = 0.1
"""Base and transfer are known by their sources to a tenth of what is uncertain of them without any."""

DROP_LOG = 1.0
"""Some of several sources are dropped where the rows are e times likelier without them; a smaller difference
says nothing."""
KEEP_LOG = 2.0
"""Any are used only where the rows are e^2 times likelier with them than by physics (positive evidence: Kass
and Raftery 1995, JASA 90(430)): three rows fit even shuffled entries now and then."""

FILLED_SD = 0.15
"""Relative standard error of an entry that a source lacks: how far entries stray from their kind's physics."""

MIN_COVERAGE = 0.5
"""A source has at least this fraction of the blocks; what it lacks is filled by its own physics."""


@dataclass(frozen=True)
class SourceEntries:
    """Another device's entries, in ms by block key.

    `entry_se` are standard errors of those that are not exactly known, ms.
    """

    name: str
    entry_ms: Mapping[str, float]
    base_ms: float = 0.0
    transfer_ms_per_mib: float = 0.0
    entry_se: Mapping[str, float] = field(default_factory=dict)

    def covers(self, keys: Sequence[str]) -> bool:
        """Return whether it has enough of the blocks."""
        return sum(key in self.entry_ms for key in keys) >= MIN_COVERAGE * len(keys)

    def check(self, keys: Sequence[str]) -> None:
        """Raise UsageError where it has fewer than half of the blocks."""
        if not self.covers(keys):
            raise UsageError(
                f"{self.name} has {sum(key in self.entry_ms for key in keys)} of the {len(keys)} blocks; "
                "give a LUT of the same space and resolutions",
                code="source_lacks_blocks",
            )

    def filled(self, keys: Sequence[str], features: Mapping[str, KeyFeatures]) -> Floats:
        """Return (k,) its entries; those that it lacks are predicted from features by its own physics.

        Raises UsageError: it has fewer than half of the blocks.
        """
        self.check(keys)
        known = [key for key in keys if key in self.entry_ms]
        ms = np.array([self.entry_ms.get(key, math.nan) for key in keys])
        missing = np.isnan(ms)
        if missing.any():
            prices = prices_by_kind(known, features, ms[~missing])
            pooled = np.mean(list(prices.values()), axis=0)
            for position in np.flatnonzero(missing):
                feature = features[keys[position]]
                ms[position] = np.array(amounts(feature)) @ prices.get(feature.kind, pooled)
        return ms

    def standard_errors(self, keys: Sequence[str], filled: Floats) -> Floats:
        """Return (k,) standard errors of `filled` entries."""
        default = [
            0.0 if key in self.entry_ms else FILLED_SD * ms for key, ms in zip(keys, filled, strict=True)
        ]
        return np.array([self.entry_se.get(key, se) for key, se in zip(keys, default, strict=True)])


def source_from_lut(name: str, lut: Lut) -> SourceEntries:
    """Return a LUT as a source.

    Its standard errors are half-widths of 95 % intervals over the normal quantile.
    """
    reach = normal_quantile(0.5 + CONFIDENCE / 2)
    return SourceEntries(
        name,
        {entry.key: entry.ms for entry in lut.entries},
        lut.meta.base_ms,
        lut.meta.transfer_ms_per_mib,
        {entry.key: max(entry.ci_high - entry.ms, 0.0) / reach for entry in lut.entries},
    )


def prices_by_kind(keys: Sequence[str], features: Mapping[str, KeyFeatures], ms: Floats) -> dict[str, Floats]:
    """Fit coefficients (TERMS,) of every kind of block to entries (k,), by least squares of relative errors."""
    from scipy.optimize import nnls

    kinds = np.array([features[key].kind for key in keys])
    amount = np.array([amounts(features[key]) for key in keys])
    size = np.maximum(ms, 1e-3 * ms.mean())
    prices = {}
    for kind in sorted(set(kinds)):
        rows, unit = kinds == kind, np.maximum(amount[kinds == kind].max(axis=0), 1e-12)
        prices[str(kind)] = nnls(amount[rows] / unit / size[rows, None], ms[rows] / size[rows])[0] / unit
    return prices


def with_sources(
    design: FitDesign, features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries]
) -> FitDesign:
    """Return the design with the sources' entries as its prior; raises UsageError: one has too few blocks.

    Coefficients, in order: 1 times the mean of the scaled sources; with several, how far the mean moves
    toward each; a factor for each kind of block; a factor for each resource bound (constant, MACs, depthwise
    MACs, bytes).
    """
    scaled = np.array([_scaled(design, features, source) for source in sources])
    mean = scaled.mean(axis=0)
    entries = mean[CALLS:]
    kinds = np.array([features[key].kind for key in design.keys])
    by_kind = entries[:, None] * (kinds[:, None] == np.array(design.kinds))
    toward_source = scaled - mean if len(sources) > 1 else scaled[:0]
    by_bound = entries[:, None] * _bound_shares(design.keys, features, entries)
    physics = np.column_stack([entries, toward_source[:, CALLS:].T, by_kind, by_bound])
    count, fixed = physics.shape[1], 1 + len(toward_source)
    call_design = np.zeros((CALLS, count))
    call_design[:, 0], call_design[:, 1:fixed] = mean[:CALLS], toward_source[:, :CALLS].T
    entry_se, correlated_se = _source_errors(design, features, sources, scaled[:, CALLS:])
    return dataclasses.replace(
        design,
        physics=physics,
        call_design=call_design,
        prior_mean=np.eye(1, count)[0],
        prior_scale=np.array([1.0, *[SOURCE_WEIGHT_SD] * len(toward_source), *[1.0] * (count - fixed)]),
        hyper_index=(*[FIXED] * fixed, *[KIND] * len(design.kinds), *[BOUND] * TERMS),
        call_sd=CALL_SHARE * design.call_sd,
        entry_se=entry_se,
        correlated_se=correlated_se,
    )


def _source_errors(
    design: FitDesign,
    features: Mapping[str, KeyFeatures],
    sources: Sequence[SourceEntries],
    scaled: Floats,
) -> Floats:
    """Return (2, k) errors of the mean of scaled entries (s, k): independent, and what correlation adds.

    The second is to be added in squares if the sources err together. The data cannot decide: LUTs of a
    space are mostly measured by the same networks, and where those are uninformative all rest on the same
    physics. In simulations predictions were better by the first; with four sources of 20 networks each the
    first alone held 85 % of the true entries in 95 % intervals.
    """
    own = []
    for source, entries in zip(sources, scaled, strict=True):
        filled = source.filled(design.keys, features)
        own.append(source.standard_errors(design.keys, filled) * entries.sum() / filled.sum())
    independent = np.sqrt((np.array(own) ** 2).sum(axis=0)) / len(own)
    return np.array([independent, np.sqrt(np.maximum(np.mean(own, axis=0) ** 2 - independent**2, 0.0))])


def _scaled(design: FitDesign, features: Mapping[str, KeyFeatures], source: SourceEntries) -> Floats:
    """Return (2 + k,) base, transfer and entries times the factor that brings the rows' sums to their latencies."""
    whole = np.array([source.base_ms, source.transfer_ms_per_mib, *source.filled(design.keys, features)])
    sums = design.calls @ whole[:CALLS] + design.counts @ whole[CALLS:]
    return np.asarray(whole * sums.sum() / (sums @ sums))


def _bound_shares(keys: Sequence[str], features: Mapping[str, KeyFeatures], ms: Floats) -> Floats:
    """Return (k, TERMS) fractions of constant, MACs, depthwise MACs and bytes in the physics of the entries."""
    prices = prices_by_kind(keys, features, ms)
    parts = np.array([np.array(amounts(features[key])) * prices[features[key].kind] for key in keys])
    return np.asarray(parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-12))


def choose_sources(
    design: FitDesign, features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries]
) -> tuple[list[SourceEntries], dict[str, float]]:
    """Return the sources that the rows are likeliest with, and the dropped ones by name.

    The value of a dropped one is by how much, in natural logarithms, the rows are likelier without it
    (without all that were dropped together).

    From all sources the one without which the rows are likeliest is removed, again and again, down to none;
    the largest set stays that no smaller one beats as `DROP_LOG` and, where nothing is left, `KEEP_LOG` say.
    All the way down, because of several that mislead in the same way none is missed alone. Entries count as
    exact: their standard errors would excuse anything that contradicts the rows, since entries are known less
    well than the sums that networks are.
    """

    def cost(chosen: Sequence[SourceEntries]) -> float:
        prior = with_sources(design, features, chosen) if chosen else design
        exact = prior.with_exact_entries()
        scale, deviations = learn_deviations(exact)
        return MarginalLikelihood(exact, scale).evidence(deviations) / 2

    used, left, dropped = list(sources), list(sources), dict[str, float]()
    best = cost(used) if used else 0.0
    while left:
        smaller = [[other for other in left if other is not one] for one in left]
        least, left = min(((cost(rest), rest) for rest in smaller), key=lambda priced: priced[0])
        gain = best - least
        if gain >= (DROP_LOG if left else -KEEP_LOG):
            dropped |= {source.name: gain for source in used if source not in left}
            used, best = left, least
    return used, dropped
