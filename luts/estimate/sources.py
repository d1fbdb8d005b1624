"""Other devices' entries as the prior of a joint fit (`joint.py`), in physics' place.

    e_k = c a_k (1 + kind_g + sum_b share_kb bound_b) + sum_s w_s (a_sk - a_k) + delta_k

a_s are the entries of source s times the one factor that brings its networks to the rows, a their mean; base and
transfer term go with them. The sources' standard errors of their own entries are noise on a_k.
c ~ N(1, 1): nothing is known of the device's speed. A kind of block may differ from it
(kind_g ~ N(0, kind_sd^2)), and so may what bounds a block (bound_b ~ N(0, bound_sd^2)): share_kb is the share of b
(constant, MACs, depthwise MACs, bytes) in what physics makes of a_k. w_s ~ N(0, 0.5^2) leans the mean toward the
source that the device is like. delta is that of `joint.py`: of each block alone, and a Gaussian process over like
blocks. All deviations are learned by marginal likelihood, so that a source that tells little is leant on little.
One that the rows contradict is left out: they are likelier without it (`chosen_sources`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from luts.estimate.marginal import Marginal
from luts.estimate.physics import TERMS, amounts, coefficients_of
from luts.estimate.quantiles import normal_quantile
from luts.estimate.ratios import CONFIDENCE
from luts.estimate.rows import Design
from luts.estimate.solve import learned_scale
from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.numbers import Floats
from luts.format.schema import Coefficients, KeyFeatures

LEAN_SD = 0.5
"""How far the mean of several sources may lean toward one of them."""

CALL_SHARE = 0.1
"""Base and transfer are known by their sources to a tenth of what is uncertain of them without any."""

DROP_LOG = 1.0
"""Some of several sources are dropped where the rows are e times likelier without them; a smaller difference says
nothing."""
KEEP_LOG = 2.0
"""Any are kept only where the rows are e^2 times likelier with them than by physics (positive evidence: Kass and
Raftery 1995, JASA 90(430)): three rows fit even shuffled entries now and then."""

FILLED_SD = 0.15
"""How far an entry strays from its kind's physics as a rule (`posterior.ENTRY_SD`): the doubt of a filled one."""

FEWEST_SHARED = 0.5
"""A source has at least this share of the blocks; what it lacks is filled by its own physics."""


@dataclass(frozen=True)
class Source:
    """Another device's entries, ms by key, under a name for people; `entry_se` are their standard errors, ms, of
    those that are not exactly known."""

    name: str
    entry_ms: Mapping[str, float]
    base_ms: float = 0.0
    transfer_ms_per_mib: float = 0.0
    entry_se: Mapping[str, float] = field(default_factory=dict)

    def covers(self, keys: Sequence[str]) -> bool:
        """Whether it has enough of the blocks."""
        return sum(key in self.entry_ms for key in keys) >= FEWEST_SHARED * len(keys)

    def check(self, keys: Sequence[str]) -> None:
        """Raises UsageError where it has fewer than half of the blocks."""
        if not self.covers(keys):
            raise UsageError(
                f"{self.name} has {sum(key in self.entry_ms for key in keys)} of the {len(keys)} blocks; "
                "give a LUT of the same space and resolutions"
            )

    def filled(self, keys: Sequence[str], features: Mapping[str, KeyFeatures]) -> Floats:
        """(k,) its entries; what it lacks is what its own physics makes of the features.

        Raises:
            UsageError: it has fewer than half of the blocks.
        """
        self.check(keys)
        known = [key for key in keys if key in self.entry_ms]
        ms = np.array([self.entry_ms.get(key, math.nan) for key in keys])
        missing = np.isnan(ms)
        if missing.any():
            prices = kind_prices(known, features, ms[~missing])
            common = coefficients_of(np.mean([list(dict(row).values()) for row in prices.values()], axis=0))
            for position in np.flatnonzero(missing):
                feature = features[keys[position]]
                price = prices.get(feature.kind, common)
                ms[position] = np.array(amounts(feature)) @ np.array(list(dict(price).values()))
        return ms

    def doubt(self, keys: Sequence[str], filled: Floats) -> Floats:
        """(k,) standard errors of `filled` entries."""
        exact = [
            0.0 if key in self.entry_ms else FILLED_SD * ms for key, ms in zip(keys, filled, strict=True)
        ]
        return np.array([self.entry_se.get(key, se) for key, se in zip(keys, exact, strict=True)])


def source_of(name: str, lut: Lut) -> Source:
    """A LUT as a source: half-widths of its 95 % intervals tell its standard errors."""
    reach = normal_quantile(0.5 + CONFIDENCE / 2)
    return Source(
        name,
        {entry.key: entry.ms for entry in lut.entries},
        lut.meta.base_ms,
        lut.meta.transfer_ms_per_mib,
        {entry.key: max(entry.ci_high - entry.ms, 0.0) / reach for entry in lut.entries},
    )


def kind_prices(
    keys: Sequence[str], features: Mapping[str, KeyFeatures], ms: Floats
) -> dict[str, Coefficients]:
    """Physics of every kind of block from entries (k,), by least squares of relative errors."""
    from scipy.optimize import nnls

    kinds = np.array([features[key].kind for key in keys])
    amount = np.array([amounts(features[key]) for key in keys])
    size = np.maximum(ms, 1e-3 * ms.mean())
    prices = {}
    for kind in sorted(set(kinds)):
        rows, unit = kinds == kind, np.maximum(amount[kinds == kind].max(axis=0), 1e-12)
        solved = nnls(amount[rows] / unit / size[rows, None], ms[rows] / size[rows])[0] / unit
        prices[str(kind)] = coefficients_of(solved)
    return prices


def with_sources(design: Design, features: Mapping[str, KeyFeatures], sources: Sequence[Source]) -> Design:
    """The design with the sources' entries as its prior. Raises UsageError where one has too few blocks."""
    scaled = np.array([_scaled(design, features, source) for source in sources])
    mean = scaled.mean(axis=0)
    entries = mean[2:]
    kinds = np.array([features[key].kind for key in design.keys])
    by_kind = entries[:, None] * (kinds[:, None] == np.array(design.kinds))
    leaning = scaled - mean if len(sources) > 1 else scaled[:0]
    bounds = entries[:, None] * _bound_shares(design.keys, features, entries)
    physics = np.column_stack([entries, leaning[:, 2:].T, by_kind, bounds])
    count = physics.shape[1]
    called = np.zeros((2, count))
    called[:, 0], called[:, 1 : 1 + len(leaning)] = mean[:2], leaning[:, :2].T
    fixed = 1 + len(leaning)
    alone, alike = _doubt(design, features, sources, scaled[:, 2:])
    return dataclasses.replace(
        design,
        physics=physics,
        called=called,
        common=np.eye(1, count)[0],
        natural=np.array([1.0, *[LEAN_SD] * len(leaning), *[1.0] * (count - fixed)]),
        strengths=(*[-1] * fixed, *[2] * len(design.kinds), *[4] * TERMS),
        call_sd=CALL_SHARE * design.call_sd,
        doubt=alone,
        alike=alike,
    )


def _doubt(
    design: Design, features: Mapping[str, KeyFeatures], sources: Sequence[Source], scaled: Floats
) -> Floats:
    """(2, k) standard errors of the mean of scaled entries (s, k): if sources err independently, and what is to be
    added (in squares) if they err alike.

    Which it is can't be told: LUTs of a space are mostly measured by the same networks, and where those tell
    nothing all rest on the same physics. In simulations predictions were better by the first; with four sources of
    20 networks each the first alone held 85 % of the true entries in 95 % intervals.
    """
    own = []
    for source, entries in zip(sources, scaled, strict=True):
        filled = source.filled(design.keys, features)
        own.append(source.doubt(design.keys, filled) * entries.sum() / filled.sum())
    alone = np.sqrt((np.array(own) ** 2).sum(axis=0)) / len(own)
    return np.array([alone, np.sqrt(np.maximum(np.mean(own, axis=0) ** 2 - alone**2, 0.0))])


def chosen_sources(
    design: Design, features: Mapping[str, KeyFeatures], sources: Sequence[Source]
) -> tuple[list[Source], dict[str, float]]:
    """Sources that the rows are likeliest with, and the others: by how much, in natural logarithms, the rows are
    likelier without them (without all that were dropped together).

    From all of them the one without which the rows are likeliest is taken away, again and again, down to none; the
    largest set stays that no smaller one beats as `DROP_LOG` and, where nothing is left, `KEEP_LOG` say. All the
    way down, because several that mislead alike are not missed one by one.
    Entries count as they are told: their standard errors would excuse whatever contradicts the rows, since they are
    known less well than the sums that networks are.
    """

    def cost(chosen: Sequence[Source]) -> float:
        grounds = (
            dataclasses.replace(with_sources(design, features, chosen), doubt=None) if chosen else design
        )
        scale, learned = learned_scale(grounds)
        return Marginal(grounds, scale).evidence(learned) / 2

    kept, left, dropped = list(sources), list(sources), dict[str, float]()
    best = cost(kept) if kept else 0.0
    while left:
        least, left = min(
            ((cost(rest), rest) for rest in ([o for o in left if o is not one] for one in left)),
            key=lambda found: found[0],
        )
        gain = best - least
        if gain >= (DROP_LOG if left else -KEEP_LOG):
            dropped |= {source.name: gain for source in kept if source not in left}
            kept, best = left, least
    return kept, dropped


def _scaled(design: Design, features: Mapping[str, KeyFeatures], source: Source) -> Floats:
    """(2 + k,) base, transfer and entries times the factor that brings the rows' sums to their latencies."""
    whole = np.array([source.base_ms, source.transfer_ms_per_mib, *source.filled(design.keys, features)])
    sums = design.calls @ whole[:2] + design.counts @ whole[2:]
    return np.asarray(whole * sums.sum() / (sums @ sums))


def _bound_shares(keys: Sequence[str], features: Mapping[str, KeyFeatures], ms: Floats) -> Floats:
    """(k, TERMS) shares of constant, MACs, depthwise MACs and bytes in what physics makes of the entries."""
    prices = kind_prices(keys, features, ms)
    parts = np.array(
        [np.array(amounts(features[key])) * list(dict(prices[features[key].kind]).values()) for key in keys]
    )
    return np.asarray(parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-12))
