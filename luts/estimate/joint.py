"""Joint fit: the cost of every block from the latencies of whole models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from luts.estimate.likelihood import (
    ENTRY,
    FIXED,
    KIND,
    MISFIT,
    SHARED,
    FitData,
    FitDesign,
    MarginalLikelihood,
    design_of,
    learn_deviations,
    mixed_covariance,
    solve,
)
from luts.estimate.physics import TERMS, coefficients_of, count_blocks
from luts.estimate.sources import SourceEntries, choose_sources, prices_by_kind, with_sources
from luts.estimate.statistics import CONFIDENCE, normal_quantile, predictive_quantile
from luts.format.schema import MIB, Coefficients, Floats, KeyFeatures, MeasuredModel


@dataclass(frozen=True)
class JointFit:
    """Entries in the order of `keys`: ms and standard errors (k,), all >= 0.

    Attributes:
        prior: Physics by kind of block.
        entry_sd: Relative deviations; see `likelihood.HYPERPARAMETERS`.
        misfit_sd: Relative misfit of additivity.
        covariance: (2 + k, 2 + k) posterior of base, transfer and entries, ms^2.
        left_out: (m,) errors of the rows as the others predict them, in predictive standard deviations.
        reach: How many standard errors a 95 % interval of an entry reaches; with sources calibrated by
            `left_out`.
        measured_share: (k,) with sources, the fraction of what they leave open of an entry, the device's
            speed set aside, that the rows decide: 1 - posterior / prior variance. None without.
        sources: Sources that the fit rests on.
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
        """Return (n,) predictive standard errors of networks relative to their latency, misfit included."""
        calls = [np.ones(len(blocks)), np.asarray(boundary_bytes) / MIB]
        counts = np.column_stack([*calls, count_blocks(self.keys, blocks)])
        ms = counts @ np.concatenate([[self.base_ms, self.transfer_ms_per_mib], self.ms])
        variance = np.einsum("ij,jk,ik->i", counts, self.covariance, counts)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0) / ms**2 + self.misfit_sd**2))

    def half_width(
        self, heldout: Sequence[MeasuredModel], predicted_ms: Sequence[float], noise: Sequence[float]
    ) -> float | None:
        """Return the relative half-width of 95 % intervals for new measurements of networks like the held-out ones.

        Posterior predictive intervals, calibrated by the fit's own rows, each predicted by the others, and by
        the held-out networks; None without any. `noise` are the relative standard errors of their measurements.
        """
        if not heldout:
            return None
        own = self.relative_se(
            [model.blocks for model in heldout], [float(model.boundary_bytes) for model in heldout]
        )
        se = np.hypot(own, noise)
        errors = (np.array([model.ms for model in heldout]) / np.array(predicted_ms) - 1.0) / se
        quantile = predictive_quantile(np.concatenate([self.left_out, errors]))
        return quantile * float(np.sqrt((se**2).mean()))


def fit_entries(
    data: FitData, features: Mapping[str, KeyFeatures], sources: Sequence[SourceEntries] = ()
) -> JointFit:
    """Fit the cost of every key of `features`; keys that no row holds rest on the prior.

    With `sources` the entries of those that fit the rows replace physics as the prior. Needs at least one
    row; intervals say how little few rows determine. The standard errors are those of the unconstrained
    posterior, with sources of a mixture over the learned deviations; the values obey ms >= 0.

    Raises:
        KeyError: a block has no features.
        UsageError: a source has too few of the blocks.
    """
    design = design_of(data, features)
    used, dropped = choose_sources(design, features, sources)
    if used:
        design = with_sources(design, features, used)
    scale, deviations = learn_deviations(design)
    solution, covariance = solve(design, scale, deviations)
    left_out = MarginalLikelihood(design, scale).left_out_errors(deviations)
    misfit_sd, reach, share = float(deviations[MISFIT]), normal_quantile(0.5 + CONFIDENCE / 2), None
    entries, coefficients = design.entries, solution[design.coefficients]
    if used:
        covariance, misfit_sd = mixed_covariance(design, scale, deviations)
        reach = predictive_quantile(left_out)
    variance = np.diag(covariance)[entries]
    if used:
        share = _measured_share(design, scale, deviations, variance)
        variance = variance + (1.0 - share) * design.correlated_se**2
        prices = prices_by_kind(design.keys, features, solution[entries])
    else:
        by_kind = coefficients.reshape(len(design.kinds), TERMS)
        prices = dict(zip(design.kinds, by_kind, strict=True))
    return JointFit(
        keys=design.keys,
        ms=solution[entries],
        se=np.sqrt(variance),
        base_ms=float(solution[0]),
        transfer_ms_per_mib=float(solution[1]) if data.boundary_bytes.any() else 0.0,
        prior={kind: coefficients_of(row) for kind, row in prices.items()},
        entry_sd=float(deviations[ENTRY]),
        misfit_sd=misfit_sd,
        kind_sd=float(deviations[KIND]),
        shared_sd=float(deviations[SHARED]),
        covariance=covariance[: entries.stop, : entries.stop],
        reach=reach,
        left_out=left_out,
        measured_share=share,
        sources=tuple(used),
        dropped=dropped,
    )


def _measured_share(design: FitDesign, scale: Floats, deviations: Floats, variance: Floats) -> Floats:
    """Return (k,) fractions of the entries' prior variance, fixed coefficients set aside, that the rows removed."""
    learned = np.array(design.hyper_index) != FIXED
    parts = (design.physics * design.coefficient_sd(deviations))[:, learned]
    own = scale**2 * (deviations[ENTRY] ** 2 + deviations[SHARED] ** 2)
    prior = (parts**2).sum(axis=1) + own + design.entry_se**2
    return np.asarray(np.clip(1.0 - variance / prior, 0.0, 1.0))
