"""What other devices' LUTs say of a space before anything is measured: what networks are chosen by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from luts.estimate.marginal import USUAL
from luts.estimate.mixture import prior_covariance
from luts.estimate.posterior import Posterior
from luts.estimate.rows import Rows, design_of
from luts.estimate.sources import Source, with_sources
from luts.format.schema import KeyFeatures


def prior_of(
    features: Mapping[str, KeyFeatures], sources: Sequence[Source], typical: Sequence[Sequence[str]]
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
    rows = Rows(ms, np.zeros((len(ms), len(ms))), tuple(map(tuple, typical)), np.zeros(len(ms)))
    design = replace(with_sources(design_of(rows, features), features, sources), doubt=None)
    scale = np.maximum(design.physics @ design.common, design.floor)
    covariance = prior_covariance(design, scale, USUAL)
    costs = np.concatenate([design.of_calls @ design.common, design.physics @ design.common])
    return Posterior.of(design.keys, np.delete(costs, 1), np.delete(np.delete(covariance, 1, 0), 1, 1))
