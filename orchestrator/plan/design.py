"""Design models: which candidates to measure so that predictions of the whole space become narrow soonest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from luts.estimate.expected import Expectation
from luts.estimate.posterior import Posterior, most_useful_first
from luts.estimate.prior import prior_of
from luts.format.schema import KeyFeatures

TARGETS = 400
"""Candidates whose predictions are to become narrow; candidates are random, so any are a sample of the space."""


def posterior_after(
    features: Mapping[str, KeyFeatures],
    expectation: Expectation,
    *,
    measured: Sequence[Sequence[str]],
    typical: Sequence[Sequence[str]],
) -> Posterior:
    """The posterior once models with these blocks are measured; `typical` networks give the prior its size."""
    if expectation.sources:
        posterior = prior_of(features, expectation.sources, typical)
    else:
        posterior = Posterior(features, expectation, typical)
    for blocks in measured:
        posterior.learn(posterior.row(blocks))
    return posterior


def choose_design(
    features: Mapping[str, KeyFeatures],
    expectation: Expectation,
    *,
    measured: Sequence[Sequence[str]],
    candidates: Sequence[Sequence[str]],
    count: int,
) -> list[int]:
    """Positions of `count` candidates in order of usefulness, given that `measured` models are in the plan."""
    if not count:
        return []
    typical = candidates[:TARGETS]
    posterior = posterior_after(features, expectation, measured=measured, typical=typical)
    rows = np.stack([posterior.row(blocks) for blocks in candidates])
    return most_useful_first(posterior, rows, rows[: len(typical)], count)
