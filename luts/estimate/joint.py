"""Joint fit: the cost of every block from the latencies of whole models."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from luts.estimate.physics import (
    BASE_SHARE_SD,
    TERMS,
    amounts,
    coefficients_of,
    kernel,
    natural_sizes,
    scale_floor,
)
from luts.estimate.statistics import CONFIDENCE, normal_quantile, predictive_quantile
from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.schema import MIB, Coefficients, Floats, KeyFeatures, MeasuredModel

_STEPS = (1.0, 0.5, 0.25, 0.125, 0.0625)


def lattice_minimum(cost: Callable[[Floats], float], start: Floats) -> Floats:
    """Pattern search (Hooke and Jeeves 1961) whose points all lie on one lattice of binary fractions.

    So the last digits of `cost`, which differ between machines, decide nothing: `bench lut verify` elsewhere
    finds the same point, not one nearby. For logarithms the finest step, 6 %, is far below what any data tell.
    """
    point, best = start, cost(start)
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for axis in range(len(start)):
                for sign in (1.0, -1.0):
                    candidate = point.copy()
                    candidate[axis] += sign * step
                    value = cost(candidate)
                    if value < best:
                        point, best, improved = candidate, value, True
    return point


MEASUREMENT_SD_FLOOR = 1e-4
"""No row is known better than to 0.01 %: the reference's ratio is 1 by definition, not by measurement."""


@dataclass(frozen=True)
class FitData:
    """Whole models to fit: latencies ms (m,), covariance (m, m) of their logarithms, blocks, data moved
    (m,)."""

    ms: Floats
    log_covariance: Floats
    blocks: tuple[tuple[str, ...], ...]
    boundary_bytes: Floats

    @classmethod
    def of(cls, models: Sequence[MeasuredModel], log_covariance: Floats) -> FitData:
        """Those of measured models, in the order of the covariance."""
        return cls(
            ms=np.array([model.ms for model in models]),
            log_covariance=log_covariance,
            blocks=tuple(model.blocks for model in models),
            boundary_bytes=np.array([float(model.boundary_bytes) for model in models]),
        )


@dataclass(frozen=True)
class FitDesign:
    """Arrays of one fit: keys k, kinds g, rows m; every row divided by its latency, so the target is 1."""

    keys: tuple[str, ...]
    kinds: tuple[str, ...]
    counts: Floats  # (m, k)
    calls: Floats  # (m, 2): base, transfer
    physics: Floats  # (k, f g): the f amounts in the columns of the key's kind
    kernel: Floats  # (k, k) covariance of the shared deviations, unscaled
    noise: Floats  # (m, m)
    call_sd: Floats  # (2,)
    common: Floats  # (f g,) coefficients common to all kinds
    natural: Floats  # (f g,) size of a coefficient if its feature explained all latency
    floor: float  # smallest scale of an entry's deviation, ms
    called: Floats | None = None  # (2, f g): what each coefficient adds to base and transfer; None: nothing
    strengths: tuple[
        int, ...
    ] = ()  # (f g,) places of their deviations among the learned ones, -1: 1; (): kind_sd
    doubt: Floats | None = None  # (k,) standard errors of physics' entries themselves, ms; None: exact
    alike: Floats | None = None  # (k,) what intervals of entries add to them (in squares), ms; None: nothing

    @property
    def of_calls(self) -> Floats:
        """`called`, zeros where there is none."""
        return np.zeros((2, len(self.common))) if self.called is None else self.called

    @property
    def doubt_variance(self) -> Floats:
        """`doubt` squared, zeros where there is none."""
        return np.zeros(len(self.keys)) if self.doubt is None else self.doubt**2

    @property
    def columns(self) -> Floats:
        """(m, f g): what each coefficient adds to each row."""
        columns = self.counts @ self.physics
        return columns if self.called is None else columns + self.calls @ self.called

    def coefficient_sd(self, learned: Floats) -> Floats:
        """(f g,) prior deviations of the coefficients, given the learned ones in the order of `marginal.py`."""
        if not self.strengths:
            return np.asarray(learned[2] * self.natural)
        relative = [1.0 if place < 0 else learned[place] for place in self.strengths]
        return np.asarray(relative * self.natural)


def design_of(rows: FitData, features: Mapping[str, KeyFeatures]) -> FitDesign:
    """The arrays of a fit of these rows. Raises KeyError for a block without features."""
    from scipy.optimize import nnls

    keys = tuple(sorted(features))
    kinds = tuple(sorted({features[key].kind for key in keys}))
    index = {key: position for position, key in enumerate(keys)}
    counts = np.zeros((len(rows.ms), len(keys)))
    for row, blocks in enumerate(rows.blocks):
        for key, times in Counter(blocks).items():
            counts[row, index[key]] = times
    handed_mib = rows.boundary_bytes / MIB
    physics = _physics_by_kind(keys, kinds, features)
    pooled = physics.reshape(len(keys), len(kinds), TERMS).sum(axis=1)
    mean_ms = float(rows.ms.mean())
    totals = counts @ pooled
    natural = natural_sizes(totals, mean_ms)
    shared_columns = np.column_stack([np.ones(len(rows.ms)), totals])
    sizes = np.array([BASE_SHARE_SD * mean_ms, *natural])
    weak = 0.1 * np.eye(1 + TERMS)
    system = np.vstack([shared_columns * sizes / rows.ms[:, None], weak])
    common = nnls(system, np.concatenate([np.ones(len(rows.ms)), np.zeros(1 + TERMS)]))[0] * sizes
    return FitDesign(
        keys=keys,
        kinds=kinds,
        counts=counts / rows.ms[:, None],
        calls=np.column_stack([np.ones(len(rows.ms)), handed_mib]) / rows.ms[:, None],
        physics=physics,
        kernel=kernel(keys, features),
        noise=rows.log_covariance + MEASUREMENT_SD_FLOOR**2 * np.eye(len(rows.ms)),
        call_sd=np.array(
            [BASE_SHARE_SD * mean_ms, mean_ms / handed_mib.mean() if handed_mib.any() else 1e-9]
        ),
        common=np.tile(common[1:], len(kinds)),
        natural=np.tile(np.maximum(natural, 1e-12), len(kinds)),
        floor=scale_floor(counts, mean_ms),
    )


def _physics_by_kind(
    keys: Sequence[str], kinds: Sequence[str], features: Mapping[str, KeyFeatures]
) -> Floats:
    """(k, TERMS g): what each coefficient of each kind adds to each key."""
    matrix = np.zeros((len(keys), TERMS * len(kinds)))
    for position, key in enumerate(keys):
        column = TERMS * kinds.index(features[key].kind)
        matrix[position, column : column + TERMS] = amounts(features[key])
    return matrix


LEARNED = ("entry_sd", "misfit_sd", "kind_sd", "shared_sd", "bound_sd")
"""The deviations in their order; the last is only there where other devices' entries are."""

_CENTRE = np.log([0.1, 0.004, 0.3, 0.1])
_SD = np.array([1.0, 1.0, 0.7, 1.0])
"""Weak log-normal priors, which only matter for a handful of rows. In a trial entries strayed 10 to 20 % from
physics and additivity held to 0.3-0.6 %."""

USUAL = np.array([0.03, 0.004, 0.1, 0.04, 0.1])
_SD_OF_SOURCES = np.array([0.7, 0.7, 0.7, 0.7, 0.7])
"""The same for deviations from other devices' entries. Within a kind of block the entries of two of three phones
keep their ratio within 2 to 8 % (public tables, docs/lut.md); kinds and bounds differ by a tenth or more."""


class MarginalLikelihood:
    """-2 log marginal likelihood of a design whose entries deviate by `scale` (k,), by the deviations."""

    def __init__(self, design: FitDesign, scale: Floats) -> None:
        self._design = design
        columns = design.columns
        self.residual = 1.0 - columns @ design.common
        spread = columns * design.natural
        strengths = np.array(design.strengths or [2] * len(design.natural))
        by_entry = design.counts * scale
        by_call = design.calls * design.call_sd
        self._fixed = design.noise + by_call @ by_call.T + _squared(spread[:, strengths < 0])
        if design.doubt is not None:
            self._fixed = self._fixed + _squared(design.counts * design.doubt)
        self._parts = {
            0: by_entry @ by_entry.T,
            1: np.eye(len(self.residual)),
            3: by_entry @ design.kernel @ by_entry.T,
        }
        for place in sorted(set(strengths[strengths >= 0])):
            self._parts[int(place)] = _squared(spread[:, strengths == place])
        borrowed = bool(design.strengths)
        self._centre: Floats = np.log(USUAL) if borrowed else _CENTRE
        self._sd = _SD_OF_SOURCES if borrowed else _SD

    @property
    def widest(self) -> Floats:
        """(d,) largest standard deviations of the logarithms that their priors leave."""
        return self._sd

    def maximise(self) -> Floats:
        """The deviations at the mode of marginal likelihood times their weak priors."""
        return np.asarray(np.exp(lattice_minimum(self.cost, self._centre)))

    def covariance(self, learned: Floats) -> Floats:
        """(m, m) of the rows."""
        squares = learned**2
        return np.asarray(self._fixed + sum(squares[place] * part for place, part in self._parts.items()))

    def cost(self, logs: Floats) -> float:
        """-2 log of likelihood and priors, constants left out."""
        fit = _twice_negative_log(self.covariance(np.exp(logs)), self.residual)
        return fit + self._strain(logs)

    def _strain(self, logs: Floats) -> float:
        return float((((logs - self._centre) / self._sd) ** 2).sum())

    def evidence(self, learned: Floats) -> float:
        """-2 log of density and of the deviations' priors, for fits on other grounds to compare.

        Nothing is known of the device's speed: coefficients common to all kinds are drawn from around 0 by their
        natural size.
        """
        strain = self._strain(np.log(learned))
        if self._design.strengths:
            return strain + _twice_negative_log(self.covariance(learned), self.residual)
        columns = self._design.columns * self._design.natural
        kinds = len(self._design.kinds)
        common = columns.reshape(len(columns), kinds, -1).sum(axis=1)
        return strain + _twice_negative_log(
            self.covariance(learned) + _squared(common), np.ones(len(self.residual))
        )

    def left_out(self, learned: Floats) -> Floats:
        """(m,) errors of every row as the others predict it, in its predictive standard deviations (Rasmussen and
        Williams 2006, 5.4.2)."""
        inverse = np.linalg.inv(self.covariance(learned))
        return np.asarray((inverse @ self.residual) / np.sqrt(np.diag(inverse)))


def _squared(columns: Floats) -> Floats:
    return np.asarray(columns @ columns.T)


def _twice_negative_log(covariance: Floats, residual: Floats) -> float:
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, residual)
    return float(white @ white + 2 * np.log(np.diag(factor)).sum())


def learned_scale(design: FitDesign) -> tuple[Floats, Floats]:
    """The entries' scales (k,), refined once by what the rows say of the prior, and the learned deviations."""
    scale = np.maximum(design.physics @ design.common, design.floor)
    solution, _ = solve(design, scale, MarginalLikelihood(design, scale).maximise())
    refined = np.maximum(design.physics @ solution[-len(design.common) :], design.floor)
    return refined, MarginalLikelihood(design, refined).maximise()


def solve(design: FitDesign, scale: Floats, hyper: Floats) -> tuple[Floats, Floats]:
    """Most probable (base, t, entries, coefficients), all >= 0; their unconstrained posterior covariance.

    One bounded least-squares problem: whitened rows of the models above whitened rows of the priors.
    """
    from scipy.linalg import solve_triangular
    from scipy.optimize import lsq_linear

    entry_sd, misfit_sd, shared_sd = hyper[0], hyper[1], hyper[3]
    models, entries, coefficients = len(design.noise), len(scale), len(design.common)
    size = 2 + entries + coefficients
    factor = np.linalg.cholesky(design.noise + misfit_sd**2 * np.eye(models))
    data = np.hstack([design.calls, design.counts, np.zeros((models, coefficients))])
    prior = np.zeros((size, size))
    prior[:2, :2] = np.diag(1.0 / design.call_sd)
    prior[:2, 2 + entries :] = -design.of_calls / design.call_sd[:, None]
    spread = np.outer(scale, scale) * (entry_sd**2 * np.eye(entries) + shared_sd**2 * design.kernel)
    if design.doubt is not None:
        spread = spread + np.diag(design.doubt_variance)
    root = np.linalg.cholesky(spread)
    prior[2 : 2 + entries, 2 : 2 + entries] = solve_triangular(root, np.eye(entries), lower=True)
    prior[2 : 2 + entries, 2 + entries :] = -solve_triangular(root, design.physics, lower=True)
    coefficient_sd = design.coefficient_sd(hyper)
    precision = 1.0 / coefficient_sd
    prior[2 + entries :, 2 + entries :] = np.diag(precision)
    system = np.vstack([solve_triangular(factor, data, lower=True), prior])
    target = np.concatenate(
        [
            solve_triangular(factor, np.ones(models), lower=True),
            np.zeros(2 + entries),
            precision * design.common,
        ]
    )
    unit = np.concatenate([design.call_sd, np.sqrt(np.diag(spread)), coefficient_sd])
    scaled = system * unit
    # bvls rounds: what it leaves at its bound may lie 1e-17 below.
    least = np.where(np.arange(size) < 2 + entries, 0.0, -np.inf if design.strengths else 0.0)
    solution = np.maximum(lsq_linear(scaled, target, bounds=(least, np.inf), method="bvls").x, least) * unit
    inverse = solve_triangular(np.linalg.qr(scaled, mode="r"), np.eye(size))
    return solution, (inverse @ inverse.T) * np.outer(unit, unit)


STEP = 0.5
"""Of the second differences in logarithms that give the curvature."""


def prior_covariance(design: FitDesign, scale: Floats, learned: Floats) -> Floats:
    """(2 + k, 2 + k) of base, transfer and entries before any row, ms^2, at these deviations."""
    spread = np.vstack([design.of_calls, design.physics]) * design.coefficient_sd(learned)
    covariance = spread @ spread.T
    covariance[:2, :2] += np.diag(design.call_sd**2)
    own = learned[0] ** 2 * np.eye(len(scale)) + learned[3] ** 2 * design.kernel
    covariance[2:, 2:] += np.outer(scale, scale) * own + np.diag(design.doubt_variance)
    return np.asarray(covariance)


def mixture(marginal: MarginalLikelihood, mode: Floats) -> tuple[Floats, Floats]:
    """Deviations (2 d, d) around the mode (d,), and their weights (2 d,), which sum to 1."""
    centre, count = np.log(mode), len(mode)
    best = marginal.cost(centre)
    steps = STEP * np.eye(count)
    bends = np.array([marginal.cost(centre + s) + marginal.cost(centre - s) - 2 * best for s in steps])
    sd = np.minimum(np.sqrt(2 * STEP**2 / np.maximum(bends, 1e-9)), marginal.widest)
    reach = np.sqrt(count) * np.diag(sd)
    points = np.vstack([centre + reach, centre - reach])
    above = np.array([marginal.cost(point) for point in points]) - best
    weights = np.exp(-(above - above.min()) / 2)
    return np.exp(points), weights / weights.sum()


def mixed_covariance(design: FitDesign, scale: Floats, mode: Floats) -> tuple[Floats, float]:
    """(2 + k, 2 + k) posterior covariance around the entries at the mode, and the misfit's deviation."""
    marginal = MarginalLikelihood(design, scale)
    rows = np.hstack([design.calls, design.counts])

    def posterior(learned: Floats) -> tuple[Floats, Floats]:
        prior = prior_covariance(design, scale, learned)
        onto = prior @ rows.T
        gain = np.linalg.solve(marginal.covariance(learned), onto.T).T
        return gain @ marginal.residual, prior - gain @ onto.T

    points, weights = mixture(marginal, mode)
    centre, _ = posterior(mode)
    total = np.zeros((len(centre), len(centre)))
    for weight, learned in zip(weights, points, strict=True):
        mean, covariance = posterior(learned)
        total += weight * (covariance + np.outer(mean - centre, mean - centre))
    return total, float(np.sqrt(weights @ points[:, 1] ** 2))


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
class SourceEntries:
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


def source_from_lut(name: str, lut: Lut) -> SourceEntries:
    """A LUT as a source: half-widths of its 95 % intervals tell its standard errors."""
    reach = normal_quantile(0.5 + CONFIDENCE / 2)
    return SourceEntries(
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


def with_sources(
    design: FitDesign, features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries]
) -> FitDesign:
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
    design: FitDesign, features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries], scaled: Floats
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
    design: FitDesign, features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries]
) -> tuple[list[SourceEntries], dict[str, float]]:
    """Sources that the rows are likeliest with, and the others: by how much, in natural logarithms, the rows are
    likelier without them (without all that were dropped together).

    From all of them the one without which the rows are likeliest is taken away, again and again, down to none; the
    largest set stays that no smaller one beats as `DROP_LOG` and, where nothing is left, `KEEP_LOG` say. All the
    way down, because several that mislead alike are not missed one by one.
    Entries count as they are told: their standard errors would excuse whatever contradicts the rows, since they are
    known less well than the sums that networks are.
    """

    def cost(chosen: Sequence[SourceEntries]) -> float:
        grounds = (
            dataclasses.replace(with_sources(design, features, chosen), doubt=None) if chosen else design
        )
        scale, learned = learned_scale(grounds)
        return MarginalLikelihood(grounds, scale).evidence(learned) / 2

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


def _scaled(design: FitDesign, features: Mapping[str, KeyFeatures], source: SourceEntries) -> Floats:
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


@dataclass(frozen=True)
class JointFit:
    """Entries in the order of `keys`: ms and standard errors (k,), all >= 0. Deviations: see the module.

    Attributes:
        covariance: (2 + k, 2 + k) posterior of base, transfer and entries, ms^2.
        measured_share: (k,) with sources: how much of what they leave open of an entry, the device's speed set
            aside, the rows decide: 1 - posterior / prior variance. None without.
        left_out: (m,) errors of the rows as the others predict them, in predictive standard deviations.
        reach: Standard errors that a 95 % interval of an entry reaches; with sources what rows left out say too.
        sources: That the fit rests on, those that fit the rows.
        dropped: The others by name, with how much likelier the rows are without them (natural logarithm).
    """

    keys: tuple[str, ...]
    ms: Floats
    se: Floats
    base_ms: float
    transfer_ms_per_mib: float
    prior: dict[str, Coefficients]
    entry_sd: float
    misfit_sd: float
    kind_sd: float
    shared_sd: float
    covariance: Floats
    left_out: Floats
    reach: float
    measured_share: Floats | None = None
    sources: tuple[SourceEntries, ...] = ()
    dropped: Mapping[str, float] = field(default_factory=dict)

    def relative_se(self, blocks: Sequence[Sequence[str]], boundary_bytes: Sequence[float]) -> Floats:
        """(n,) predictive standard errors of networks relative to their latency, what does not add up included."""
        index = {key: 2 + position for position, key in enumerate(self.keys)}
        counts = np.zeros((len(blocks), 2 + len(self.keys)))
        counts[:, 0], counts[:, 1] = 1.0, np.asarray(boundary_bytes) / MIB
        for row, keys in enumerate(blocks):
            for key in keys:
                counts[row, index[key]] += 1.0
        ms = counts @ np.concatenate([[self.base_ms, self.transfer_ms_per_mib], self.ms])
        variance = np.einsum("ij,jk,ik->i", counts, self.covariance, counts)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0) / ms**2 + self.misfit_sd**2))


def fit_entries(
    rows: FitData, features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries] = ()
) -> JointFit:
    """Cost of every key of `features`; those that no row holds rest on the prior.

    With `sources` the entries of those that fit the rows are the prior in physics' place (`sources.py`).

    Raises KeyError for a block without features. Needs at least one row; intervals tell how little few rows
    say. The standard errors are those of the unconstrained posterior, with sources of a mixture over the deviations
    (`mixture.py`); the values obey ms >= 0.
    """
    design = design_of(rows, features)
    kept, dropped = chosen_sources(design, features, sources)
    if kept:
        design = with_sources(design, features, kept)
    scale, hyper = learned_scale(design)
    solution, covariance = solve(design, scale, hyper)
    entries = slice(2, 2 + len(design.keys))
    left_out, misfit_sd = MarginalLikelihood(design, scale).left_out(hyper), float(hyper[1])
    reach = normal_quantile(0.5 + CONFIDENCE / 2)
    share = None
    if kept:
        covariance, misfit_sd = mixed_covariance(design, scale, hyper)
        reach = predictive_quantile(left_out)
    variance = np.diag(covariance)[entries]
    if kept:
        share = _measured_share(design, scale, hyper, variance)
        if design.alike is not None:
            variance = variance + (1.0 - share) * design.alike**2
        prices = kind_prices(design.keys, features, solution[entries])
    else:
        by_kind = solution[entries.stop :].reshape(len(design.kinds), TERMS)
        prices = {kind: coefficients_of(row) for kind, row in zip(design.kinds, by_kind, strict=True)}
    return JointFit(
        keys=design.keys,
        ms=solution[entries],
        se=np.sqrt(variance),
        base_ms=float(solution[0]),
        transfer_ms_per_mib=float(solution[1]) if rows.boundary_bytes.any() else 0.0,
        prior=prices,
        entry_sd=float(hyper[0]),
        misfit_sd=misfit_sd,
        kind_sd=float(hyper[2]),
        shared_sd=float(hyper[3]),
        covariance=covariance[: entries.stop, : entries.stop],
        reach=reach,
        left_out=left_out,
        measured_share=share,
        sources=tuple(kept),
        dropped=dropped,
    )


def _measured_share(design: FitDesign, scale: Floats, hyper: Floats, variance: Floats) -> Floats:
    learned = np.array(design.strengths) >= 0
    parts = (design.physics * design.coefficient_sd(hyper))[:, learned]
    prior = (parts**2).sum(axis=1) + scale**2 * (hyper[0] ** 2 + hyper[3] ** 2) + design.doubt_variance
    return np.asarray(np.clip(1.0 - variance / prior, 0.0, 1.0))
