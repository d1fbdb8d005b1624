"""Joint fit: the cost of every block from the latencies of whole models.

    y_m = base + sum_k n_mk e_k + t D_m + error,   e_k = prior_k + delta_k
    prior_k = constant + a * MACs_k + b * depthwise MACs_k + c * bytes moved_k   per kind of block

All rows are solved together as generalised least squares. Everything that data can't decide falls back on
what physics says: an entry on its prior, a kind's coefficients on those common to all kinds. As a Bayesian
model,
    delta_k = scale_k * (entry_sd * own_k + shared_sd * f(features_k)),   own_k ~ N(0, 1),
    f a Gaussian process over like blocks of one kind (`physics.kernel`; Rasmussen and Williams 2006, 2.2),
    coefficients ~ N(common, (kind_sd * natural size)^2),
    error ~ N(0, measured covariance + (misfit_sd * y_m)^2),
and the four relative deviations maximise the marginal likelihood (Bishop 2006, 3.5), so the strength of the
ridge, and how much of it like blocks share, is learned from the rows. All rows count relative to their own
latency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from luts.estimate.marginal import Marginal
from luts.estimate.mixture import mixed_covariance
from luts.estimate.physics import TERMS, coefficients_of
from luts.estimate.predictive import predictive_quantile
from luts.estimate.quantiles import normal_quantile
from luts.estimate.ratios import CONFIDENCE
from luts.estimate.rows import Design, Rows, design_of
from luts.estimate.solve import learned_scale, solve
from luts.estimate.sources import Source, chosen_sources, kind_prices, with_sources
from luts.format.numbers import MIB, Floats
from luts.format.schema import Coefficients, KeyFeatures


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
    sources: tuple[Source, ...] = ()
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


def fit_entries(rows: Rows, features: Mapping[str, KeyFeatures], sources: Sequence[Source] = ()) -> JointFit:
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
    left_out, misfit_sd = Marginal(design, scale).left_out(hyper), float(hyper[1])
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


def _measured_share(design: Design, scale: Floats, hyper: Floats, variance: Floats) -> Floats:
    learned = np.array(design.strengths) >= 0
    parts = (design.physics * design.coefficient_sd(hyper))[:, learned]
    prior = (parts**2).sum(axis=1) + scale**2 * (hyper[0] ** 2 + hyper[3] ** 2) + design.doubt_variance
    return np.asarray(np.clip(1.0 - variance / prior, 0.0, 1.0))
