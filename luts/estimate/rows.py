"""Whole models as rows of one linear model: the arrays that the joint fit (`joint.py`) solves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luts.estimate.physics import BASE_SHARE_SD, TERMS, amounts, kernel, natural_sizes, scale_floor
from luts.format.numbers import MIB, Floats
from luts.format.schema import KeyFeatures, MeasuredModel

MEASUREMENT_SD_FLOOR = 1e-4
"""No row is known better than to 0.01 %: the reference's ratio is 1 by definition, not by measurement."""


@dataclass(frozen=True)
class Rows:
    """Whole models to fit: latencies ms (m,), covariance (m, m) of their logarithms, blocks, data moved
    (m,)."""

    ms: Floats
    log_covariance: Floats
    blocks: tuple[tuple[str, ...], ...]
    boundary_bytes: Floats

    @classmethod
    def of(cls, models: Sequence[MeasuredModel], log_covariance: Floats) -> Rows:
        """Those of measured models, in the order of the covariance."""
        return cls(
            ms=np.array([model.ms for model in models]),
            log_covariance=log_covariance,
            blocks=tuple(model.blocks for model in models),
            boundary_bytes=np.array([float(model.boundary_bytes) for model in models]),
        )


@dataclass(frozen=True)
class Design:
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


def design_of(rows: Rows, features: Mapping[str, KeyFeatures]) -> Design:
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
    return Design(
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
